"""The handler, where RunPod's hub looks for it. The image starts `longhand runpod`."""

from dispatcher.handler import main

if __name__ == "__main__":
    main()
