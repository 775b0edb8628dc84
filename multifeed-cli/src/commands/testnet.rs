//! `multifeed testnet`: a DHT of this machine alone.

use multifeed_swarm::Testnet;

use crate::args;
use crate::error::CliError;
use crate::output::{Event, Output};
use crate::stop::Stop;

/// Three are needed for peers to find each other.
const NODES: usize = 4;

pub(super) async fn run(args: &args::Testnet, output: &Output) -> Result<(), CliError> {
    let mut stop = Stop::listen()?;
    let testnet = Testnet::start(NODES, args.port).await?;
    output.say("a DHT of this machine alone, until Ctrl-C. In other terminals:\n")?;
    for address in testnet.bootstrap() {
        let address = address.to_string();
        let people = || format!("  multifeed swarm --key-file k --bootstrap {address}");
        output.print(people, &Event::Listening { address: address.clone() })?;
    }
    stop.wait().await;
    Ok(())
}
