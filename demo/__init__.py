"""The main job, shown: a recording at a URL becomes a transcript, with real parts on this machine."""
