'use strict'
// node append.js DIR NAME: a JS app that appends to its writer until it is killed: one block, or a batch of some, at a time. It prints
// "appended LENGTH" when an append called back. Block i is `block i`, padded to a length that follows from i.

const multifeed = require('multifeed')

const [,, dir, name] = process.argv
const block = (i) => `block ${i} `.padEnd(10 + (i * 37) % 400, 'x')

const multi = multifeed(dir)
multi.ready((err) => {
  if (err) throw err
  multi.writer(name, (err, feed) => {
    if (err) throw err
    feed.ready(() => next(feed))
  })
})

function next (feed) {
  const count = feed.length % 3 === 2 ? 4 : 1
  const batch = []
  for (let i = feed.length; i < feed.length + count; i++) batch.push(block(i))
  feed.append(batch, (err) => {
    if (err) throw err
    console.log(`appended ${feed.length}`)
    setImmediate(next, feed)
  })
}
