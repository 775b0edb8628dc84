#!/usr/bin/env bash
# What: `npm install multifeed@6.0.0` gives noise-protocol 3.0.2, which fits the range `^3.0.0` of simple-hypercore-protocol 2.1.2.
#   With it the first feed cannot be made: ready() ends in ERR_INVALID_ARG_TYPE, thrown outside of any callback, so that the process ends.
#   With noise-protocol 3.0.1 and its time's hmac-blake2b and sodium-universal the same program runs.
# Seen: multifeed 6.0.0, hypercore-protocol 8.0.7, simple-hypercore-protocol 2.1.2, Node.js 20; November 2026.
set -euo pipefail
command -v npm >/dev/null || { echo 'needs Node.js and npm'; exit 2; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir new old
cat >new/package.json <<'JSON'
{ "private": true, "dependencies": { "multifeed": "6.0.0", "random-access-memory": "3.1.4" }, "overrides": { "noise-protocol": "3.0.2" } }
JSON
cat >old/package.json <<'JSON'
{ "private": true, "dependencies": { "multifeed": "6.0.0", "random-access-memory": "3.1.4" },
  "overrides": { "noise-protocol": "3.0.1", "hmac-blake2b": "2.0.0", "sodium-universal": "3.1.0", "sodium-native": "3.4.1" } }
JSON
for side in new old; do
  (cd "$side" && npm install --no-audit --no-fund >npm.log 2>&1) || { cat "$side/npm.log"; exit 2; }
  cat >"$side/run.js" <<'JS'
process.on('uncaughtException', (error) => { console.log('thrown', error.code); process.exit(0) })
const multi = require('multifeed')(require('random-access-memory'))
multi.ready(() => { multi.replicate(true).on('error', () => {}); console.log('runs') })
JS
done
with_new=$(cd new && node run.js)
with_old=$(cd old && node run.js)
echo "noise-protocol 3.0.2: $with_new"
echo "noise-protocol 3.0.1: $with_old"
[ "$with_new" = 'thrown ERR_INVALID_ARG_TYPE' ] && [ "$with_old" = runs ] || { echo 'this has changed'; exit 1; }
