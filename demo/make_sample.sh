#!/bin/sh
# Rebuilds sample.opus from sample.txt: one sentence a line, an empty line between paragraphs.
# Needs Debian's packages festival, festvox-us-slt-hts, sox and ffmpeg; takes about a minute.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The voice's own rate is hurried; -r is the speed factor of its HTS engine.
voice='(begin (voice_cmu_us_slt_arctic_hts)
              (set! hts_engine_params (cons (list "-r" 0.85) hts_engine_params)))'

# speak NAME TEXT: one sentence as 16 kHz mono, without the silence the voice puts around it.
speak() {
    printf '%s\n' "$2" | text2wave -eval "$voice" -o "$work/raw.wav"
    sox -R -v 0.8 "$work/raw.wav" -r 16000 -c 1 "$work/$1" \
        silence 1 0.02 0.3% reverse silence 1 0.02 0.3% reverse
}

# pause NAME MILLISECONDS
pause() {
    sox -R -n -r 16000 -b 16 -c 1 "$work/$1" trim 0 "$(($2 / 1000)).$(printf %03d $(($2 % 1000)))"
}

pause 000.wav 800
line=0
paragraph=0
while read -r sentence; do
    line=$((line + 1))
    name=$(printf %03d "$line")
    if [ -n "$sentence" ]; then
        speak "$name-a.wav" "$sentence"
        pause "$name-b.wav" $((350 + line * 130 % 410))
    else
        # On top of the last sentence's pause: 0.95-1.5 s in all between two paragraphs.
        paragraph=$((paragraph + 1))
        pause "$name.wav" $((600 + paragraph * 70 % 150))
    fi
done <sample.txt

# A room's faint noise, -60 dB: in no real recording is a pause all zeros.
sox -R "$work"/[0-9]*.wav "$work/speech.wav" norm -4
sox -R "$work/speech.wav" "$work/noise.wav" synth whitenoise vol 0.001
sox -R -m -v 1 "$work/speech.wav" -v 1 "$work/noise.wav" "$work/all.wav"
# -R fixes sox's dither and noise, bitexact the Ogg serial number: the same tools give the same bytes.
ffmpeg -nostdin -loglevel error -y -i "$work/all.wav" -map_metadata -1 -fflags +bitexact -flags +bitexact \
    -c:a libopus -application voip -b:a 16k sample.opus
