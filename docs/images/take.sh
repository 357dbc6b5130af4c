#!/usr/bin/env bash
# take.sh FLOWER_URL USER:PASSWORD: the pictures of docs/flower.md, of a Flower that runs, by headless Chromium.
set -euo pipefail
cd "$(dirname "$0")"
page() {
  chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --user-data-dir="$(mktemp -d)" --hide-scrollbars \
    --virtual-time-budget=8000 --window-size="$3" --screenshot="$1" "${url/:\/\//://$login@}$2" 2>/dev/null
}
url=$1 login=$2
page flower-workers.png /workers 1400,700
page flower-tasks.png /tasks 1700,760
failed=$(curl -s -u "$login" "$url/api/tasks?state=FAILURE&limit=1" | python3 -c 'import json, sys; print(next(iter(json.load(sys.stdin))))')
page flower-task.png "/task/$failed" 1400,1320
