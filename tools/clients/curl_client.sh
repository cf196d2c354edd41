#!/usr/bin/env bash
# curl: a reply, a stream, what is listed, and what a mistake looks like.
set -euo pipefail
ask() { curl --silent --show-error --max-time 120 -H 'content-type: application/json' "$OPENAI_BASE_URL/$1" -d "$2"; }
turns='"messages": [{"role": "user", "content": "Using the numbers 7, 5, 15 and 11, make 24."}]'
curl --silent --fail "${OPENAI_BASE_URL%/v1}/health" | grep -q '"status"'
curl --silent --fail "$OPENAI_BASE_URL/models" | grep -q 'embedded:high'
ask chat/completions "{\"model\": \"embedded\", $turns}" | grep -q '"finish_reason":"stop"'
stream=$(ask chat/completions "{\"model\": \"embedded\", \"stream\": true, $turns}")
grep -q '^data: {' <<<"$stream"
[ "$(tail -n 2 <<<"$stream" | head -n 1)" = 'data: [DONE]' ] || [ "$(grep -v '^$' <<<"$stream" | tail -n 1)" = 'data: [DONE]' ]
ask chat/completions "{\"model\": \"embedded\", \"tools\": [], \"budget\": 1, $turns}" | grep -q '"error"'
ask chat/completions '{' | grep -q '"invalid_request_error"'
echo "$(curl --version | head -n 1 | cut -d' ' -f1-2): reply, stream, models, health, errors"
