// node example.js HOST:PORT DIR: syncs a folder with whatever multifeed listens there, and prints the feeds.
const multi = require('multifeed')(process.argv[3])
multi.ready(() => {
  const [host, port] = process.argv[2].split(':')
  const socket = require('net').connect(port, host)
  const stream = multi.replicate(true)
  require('pump')(stream, socket, stream, (err) => {
    if (err) throw err
    for (const feed of multi.feeds()) console.log(feed.key.toString('hex'), feed.length)
  })
})
