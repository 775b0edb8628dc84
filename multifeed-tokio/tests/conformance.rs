//! The conformance suite on tokio, on a runtime with threads and on one without.

use std::future::Future;
use std::net::TcpStream;
use std::time::Duration;

use multifeed_testkit::conformance::{self, Adapter};
use multifeed_tokio::{
    ConnectionId, Multifeed, Networker, NetworkerError, ProtocolStream, Replicate, Replication, Role, StreamOptions,
};

struct Threads;
struct OneThread;
struct SlowLinks;

macro_rules! adapter {
    ($name:ident, $builder:ident, $pair:path) => {
        impl Adapter for $name {
            type Stream = tokio::net::TcpStream;

            fn run(test: impl Future<Output = ()> + Send + 'static) {
                tokio::runtime::Builder::$builder().enable_all().build().unwrap().block_on(test);
            }

            fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
                tokio::time::sleep(duration)
            }

            fn pair() -> (TcpStream, TcpStream) {
                $pair()
            }

            fn stream(tcp: TcpStream) -> Self::Stream {
                tokio::net::TcpStream::from_std(tcp).unwrap()
            }

            fn replicate(
                multi: &multifeed_tokio::driver::Multifeed,
                stream: Self::Stream,
                role: Role,
                options: Replicate,
            ) -> Replication {
                Multifeed::from(multi.clone()).replicate(stream, role, options)
            }

            fn open_stream(stream: Self::Stream, role: Role, options: StreamOptions) -> ProtocolStream {
                multifeed_tokio::open_stream(stream, role, options)
            }

            fn connect(
                networker: &multifeed_tokio::driver::Networker,
                stream: Self::Stream,
                role: Role,
            ) -> Result<ConnectionId, NetworkerError> {
                Networker::from(networker.clone()).connect(stream, role)
            }
        }
    };
}

adapter!(Threads, new_multi_thread, conformance::pair);
adapter!(OneThread, new_current_thread, conformance::pair);
adapter!(SlowLinks, new_multi_thread, conformance::slow_links::pair);

mod threads {
    multifeed_testkit::conformance!(super::Threads);
}

mod one_thread {
    multifeed_testkit::conformance!(super::OneThread);
}

mod slow_links {
    multifeed_testkit::conformance_on_slow_links!(super::SlowLinks);
}
