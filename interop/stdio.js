'use strict'
// node stdio.js DIR initiate|answer: syncs a folder with whatever is at the other end of stdin and stdout, as an app does over ssh, and prints
// its feeds to stderr.
const [dir, side] = process.argv.slice(2)
const multi = require('multifeed')(dir)
multi.ready(() => {
  const stream = multi.replicate(side === 'initiate')
  process.stdin.pipe(stream).pipe(process.stdout)
  stream.on('error', (err) => { throw err })
  stream.once('end', () => {
    for (const feed of multi.feeds()) console.error(feed.key.toString('hex'), feed.length)
  })
})
