#!/usr/bin/env bash
# What: corestore 7 opens a folder of corestore 5 without a word, and moves all of its files, `master_key` included, below `db/`.
#   corestore 5 then opens the same folder without an error, finds no `master_key`, makes a new one, and has other keys under the same
#   names: the app is another author, and its blocks are gone from its sight. Moved back by hand, the old files work again.
# Seen: corestore 5.8.2 (with hypercore 9.12.0) and 7.12.5, Node.js 20; November 2026.
set -euo pipefail
command -v npm >/dev/null || { echo 'needs Node.js and npm'; exit 2; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir five seven
cat >five/package.json <<'JSON'
{ "private": true, "dependencies": { "corestore": "5.8.2", "hypercore": "9.12.0" },
  "overrides": { "noise-protocol": "3.0.1", "hmac-blake2b": "2.0.0", "sodium-universal": "3.1.0", "sodium-native": "3.4.1" } }
JSON
cat >seven/package.json <<'JSON'
{ "private": true, "dependencies": { "corestore": "7.12.5" } }
JSON
for side in five seven; do
  (cd "$side" && npm install --no-audit --no-fund >npm.log 2>&1) || { cat "$side/npm.log"; exit 2; }
done
cat >five/run.js <<'JS'
const store = new (require('corestore'))(process.argv[2])
store.ready((error) => {
  if (error) throw error
  const core = store.default()
  const end = (error) => {
    if (error) throw error
    console.log(core.key.toString('hex'), core.length)
    store.close(() => process.exit(0))
  }
  core.ready(() => process.argv[3] ? core.append(process.argv[3], end) : end())
})
JS
cat >seven/run.js <<'JS'
const store = new (require('corestore'))(process.argv[2])
store.ready().then(() => store.close())
JS
before=$(node five/run.js "$folder/store" 'a block')
again=$(node five/run.js "$folder/store")
[ "$before" = "$again" ] || { echo "corestore 5 alone: $before, then $again"; exit 1; }
node seven/run.js "$folder/store"
moved=no; [ -f store/db/master_key ] && [ ! -e store/master_key ] && moved=yes
after=$(node five/run.js "$folder/store")
echo "corestore 5:                    $before"
echo "after corestore 7 opened it:    $after"
echo "master_key moved below db/:     $moved"
[ "$moved" = yes ] && [ "${after%% *}" != "${before%% *}" ] && [ "${after##* }" = 0 ] || { echo 'this has changed'; exit 1; }
mkdir back && mv store/db/master_key back/ && find store/db -mindepth 1 -maxdepth 1 -type d -name '??' -exec mv {} back/ \;
back=$(node five/run.js "$folder/back")
echo "moved back by hand:             $back"
[ "$back" = "$before" ] || { echo 'this has changed'; exit 1; }
