//! The conformance suite on async-std and on smol.

use std::future::Future;
use std::net::TcpStream;
use std::time::Duration;

use multifeed_async_std::{
    ConnectionId, Multifeed, Networker, NetworkerError, ProtocolStream, Replicate, Replication, Role, StreamOptions,
    driver,
};
use multifeed_testkit::conformance::Adapter;

#[cfg(feature = "async-std")]
mod async_std_ {
    use super::*;

    struct AsyncStd;

    impl Adapter for AsyncStd {
        type Stream = async_std::net::TcpStream;

        fn run(test: impl Future<Output = ()> + Send + 'static) {
            async_std::task::block_on(test);
        }

        fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
            async_std::task::sleep(duration)
        }

        fn stream(tcp: TcpStream) -> Self::Stream {
            tcp.into()
        }

        fn replicate(multi: &driver::Multifeed, stream: Self::Stream, role: Role, options: Replicate) -> Replication {
            let multi = Multifeed::from(multi.clone());
            // With both features on, the default is smol.
            if cfg!(feature = "smol") {
                multi.replicate_on::<multifeed_async_std::AsyncStd>(stream, role, options)
            } else {
                multi.replicate(stream, role, options)
            }
        }

        fn open_stream(stream: Self::Stream, role: Role, options: StreamOptions) -> ProtocolStream {
            if cfg!(feature = "smol") {
                multifeed_async_std::open_stream_on::<multifeed_async_std::AsyncStd>(stream, role, options)
            } else {
                multifeed_async_std::open_stream(stream, role, options)
            }
        }

        fn connect(
            networker: &driver::Networker,
            stream: Self::Stream,
            role: Role,
        ) -> Result<ConnectionId, NetworkerError> {
            let networker = Networker::from(networker.clone());
            if cfg!(feature = "smol") {
                networker.connect_on::<multifeed_async_std::AsyncStd>(stream, role, None)
            } else {
                networker.connect(stream, role)
            }
        }
    }

    multifeed_testkit::conformance!(AsyncStd);
}

#[cfg(feature = "smol")]
mod smol_ {
    use super::*;

    struct Smol;

    impl Adapter for Smol {
        type Stream = smol::Async<TcpStream>;

        fn run(test: impl Future<Output = ()> + Send + 'static) {
            smol::block_on(test);
        }

        async fn sleep(duration: Duration) {
            smol::Timer::after(duration).await;
        }

        fn stream(tcp: TcpStream) -> Self::Stream {
            tcp.try_into().unwrap()
        }

        fn replicate(multi: &driver::Multifeed, stream: Self::Stream, role: Role, options: Replicate) -> Replication {
            Multifeed::from(multi.clone()).replicate(stream, role, options)
        }

        fn open_stream(stream: Self::Stream, role: Role, options: StreamOptions) -> ProtocolStream {
            multifeed_async_std::open_stream(stream, role, options)
        }

        fn connect(
            networker: &driver::Networker,
            stream: Self::Stream,
            role: Role,
        ) -> Result<ConnectionId, NetworkerError> {
            Networker::from(networker.clone()).connect(stream, role)
        }
    }

    multifeed_testkit::conformance!(Smol);
}
