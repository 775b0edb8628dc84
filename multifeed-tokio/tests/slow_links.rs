//! Two of ours over a slow link.

use crate::common;

use std::time::Duration;

use common::{memory, run};
use multifeed_testkit::blocks::block;
use multifeed_testkit::throttle::Throttle;
use multifeed_tokio::{Replicate, Role};
use tokio::net::{TcpListener, TcpStream};

/// One side stays, and the other one does not: it acknowledges each block before it closes the feed, whichever feed's turn it is.
#[test]
fn one_that_stays_hears_of_each_block_before_its_feed_closes() {
    run(async {
        let (ours, theirs) = (memory().await, memory().await);
        for feed in 0..10 {
            let writer = ours.writer(format!("w{feed}").as_str()).await.unwrap();
            writer.append_batch((0..5).map(|index| block(feed, index, 20_000))).await.unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Throttle { delay: Duration::from_millis(10), ..Throttle::rate(1_000_000) };
        let address = link.listen(listener.local_addr().unwrap()).unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let stays = ours.replicate(far.unwrap().0, Role::Responder, Replicate::live());
        // Asks for what the other one has.
        stays.state().await.unwrap();
        let fetches = theirs.replicate(near.unwrap(), Role::Initiator, Replicate::default());
        let in_sync = (stays.in_sync(), fetches.in_sync());
        let (stays, fetches) = tokio::join!(stays.finish(), fetches.finish());
        let (stays, fetches) = (stays.unwrap().moved, fetches.unwrap().moved);
        assert_eq!((stays.blocks_sent, fetches.blocks_received), (50, 50));
        assert_eq!((stays.not_taken, fetches.missing), (0, 0));
        in_sync.0.await.unwrap();
        in_sync.1.await.unwrap();
    });
}
