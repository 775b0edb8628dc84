//! One sync, followed to its end: what it reports, and how a signal ends it.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use multifeed_tokio::proto::Phase;
use multifeed_tokio::{Multifeed, RemoteHandshake, Replication, SessionError, SyncError, SyncEvent};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::guest::{FAREWELL, Guest, Leave};
use super::outcome::{Apart, Outcome, not_in_sync};
use super::root_keys::Unproven;
use crate::error::{CliError, code};
use crate::output::{Event, Output, PeerName, Standing, count};
use crate::problems::Found;
use crate::stop::Stop;

/// How often progress is reported, at the most. What came between is not lost: the newest is reported at the end.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How often the terminal shows how a sync without an end stands.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Whose sync it is.
#[derive(Default)]
pub(super) struct Peer {
    /// Stands before lines for people, if there are several peers.
    pub(super) who: String,
    /// For programs.
    pub(super) name: PeerName,
    /// It connected to us: it may be a stranger, and have to give way.
    pub(super) guest: Option<Guest>,
    /// That it connected was said, and so is how it ended.
    pub(super) introduced: bool,
    /// What it showed to be wrong with the store.
    pub(super) problems: Found,
    /// What was reported that keeps the two apart.
    pub(super) apart: Apart,
    /// The store can only be read: nothing is fetched from the peer.
    pub(super) takes_nothing: bool,
    /// This side stays in sync with it.
    pub(super) live: bool,
    /// The root key, until the peer proves to have it, if that is what the store remembers it for.
    pub(super) unproven: Option<Unproven>,
}

impl Peer {
    /// Whether something may be said about it: a stranger, or a peer that comes and goes, fills no log.
    fn may_say(&self) -> bool {
        self.guest.as_ref().is_none_or(Guest::may_say)
    }

    /// Whether its end may be said. Whatever was said in between, the end is not left out of what began.
    pub(super) fn may_say_end(&self) -> bool {
        self.introduced || self.may_say()
    }

    /// Returns what to say of an event, if anything, or why its session has to end.
    fn hear(&mut self, event: SyncEvent) -> Result<Option<SyncEvent>, Leave> {
        match &mut self.guest {
            Some(guest) => guest.hear(event),
            None => Ok(Some(event)),
        }
    }

    async fn has_to_leave(&self) -> Leave {
        match &self.guest {
            Some(guest) => guest.has_to_leave().await,
            None => std::future::pending().await,
        }
    }

    fn is_proven(&self) -> bool {
        self.guest.as_ref().is_none_or(Guest::is_proven)
    }

    fn cut(&self) {
        self.guest.iter().for_each(Guest::cut);
    }
}

/// Prints what happens in a sync until it is over.
///
/// A signal ends the sync cleanly; one that is not live has then failed, since it was not done.
///
/// # Errors
///
/// Why the sync failed, or had to end, or what was wrong with stdout: the sync is then ended too.
pub(super) async fn follow(
    mut sync: Replication,
    live: bool,
    peer: &mut Peer,
    stop: &mut Stop,
    output: &Output,
) -> Result<(), CliError> {
    let who = peer.who.clone();
    let mut stopped = None;
    let mut leaves: Option<(Leave, Instant)> = None;
    let mut waiting: Option<Standing> = None;
    let mut newest: Option<Standing> = None;
    // Blocks that were known to be the peer's: one that pauses forgets what it would ask for.
    let mut known = 0;
    let mut next_progress = Instant::now();
    let seat = output.board().seat();
    if live || peer.takes_nothing {
        // From now on it is known what the peer lacks, and has. If the session is over already, its end reports that.
        let _ = sync.state().await;
    }
    loop {
        tokio::select! {
            event = sync.next() => match event {
                Some(event) => match peer.hear(event) {
                Ok(Some(SyncEvent::Progress(progress))) => {
                    let standing = Standing::from(progress);
                    if !live {
                        output.set_progress(&standing);
                    }
                    seat.set(&peer.name, None, standing);
                    let written = standing.moved.blocks_received.saturating_sub(standing.unwritten);
                    known = known.max(written.saturating_add(standing.moved.missing));
                    (waiting, newest) = (Some(standing), Some(standing));
                }
                Ok(Some(event)) => {
                    if let SyncEvent::Connected { remote_public_key, .. } = &event {
                        peer.name.id = Some(remote_public_key.to_string());
                    }
                    if matches!(event, SyncEvent::Ready(_))
                        && let Some(unproven) = peer.unproven.take()
                    {
                        unproven.prove_all(output);
                    }
                    print(&event, peer, &output.about(&peer.name))?;
                }
                Ok(None) => {}
                Err(why) => {
                    leaves.get_or_insert((why, Instant::now() + FAREWELL));
                    sync.close();
                }
                },
                None => break,
            },
            why = peer.has_to_leave(), if leaves.is_none() => {
                leaves = Some((why, Instant::now() + FAREWELL));
                if !peer.is_proven() {
                    peer.cut();
                }
                sync.close();
            }
            () = sleep_until(leaves.map_or_else(Instant::now, |(_, until)| until)), if leaves.is_some() => {
                leaves = leaves.map(|(why, _)| (why, Instant::now() + FAREWELL));
                peer.cut();
                sync.ping();
            }
            () = sleep_until(next_progress), if waiting.is_some() => {
                if let Some(standing) = waiting.take() {
                    output.about(&peer.name).print_progress(&Event::Progress(standing))?;
                }
                next_progress = Instant::now() + PROGRESS_EVERY;
            }
            signal = stop.wait(), if stopped.is_none() => {
                stopped = Some(signal);
                sync.close();
            }
        }
    }
    let output = &output.about(&peer.name);
    if let Some(standing) = waiting {
        output.print_progress(&Event::Progress(standing))?;
    }

    if peer.may_say_end() {
        peer.problems.end(&who, output)?;
    }
    // Of a session that is over this is known at once.
    let alike = sync.in_sync().await.is_ok();
    let result = sync.finish().await;
    if let Some((why, _)) = leaves {
        return Err(why.error(peer.is_proven()));
    }
    let totals = result.map_err(|error| {
        // What the error is, is said all the same.
        let mut error = explain(error, peer);
        if let Some(signal) = stopped {
            error = error.with_exit(signal.exit());
        }
        // What came is kept, however it ended.
        match newest.map(|standing| (standing.moved, standing.unwritten)) {
            Some((moved, unwritten)) if moved.blocks_received > 0 || moved.missing > 0 => {
                let kept = moved.blocks_received.saturating_sub(unwritten);
                let missing = match error.code() {
                    "ERR_STORE_FULL" => known.saturating_sub(kept),
                    _ => moved.missing,
                };
                let kept = count(kept, "block");
                error.after(&match missing {
                    // What a feed lacks that cannot be written is not counted any more.
                    0 => format!("{kept} received before that; sync again"),
                    missing => {
                        format!("{kept} received before that, {} still missing; sync again", count(missing, "block"))
                    }
                })
            }
            _ => error,
        }
    })?;
    let outcome = Outcome::of(live, alike, peer.apart, totals.moved);
    if peer.may_say_end() {
        let closed = Event::Closed { done: outcome.done(), in_sync: outcome.is_in_sync() };
        output.print(|| format!("{who}{}", outcome.text()), &closed)?;
        // Of a peer that the command is about the error says it.
        outcome.say_more(&who, peer.guest.is_some(), output)?;
    }
    match stopped {
        Some(signal) if !live => {
            Err(CliError::new(code::INTERRUPTED, "interrupted before it was done").with_exit(signal.exit()))
        }
        // Another sync changes nothing of that.
        Some(_) if peer.guest.is_none() && outcome.is_forked() => outcome.result(),
        Some(signal) if peer.guest.is_none() && !outcome.is_in_sync() => Err(not_in_sync(signal, outcome.not_taken())),
        // A peer that comes to a server takes what it likes, and goes when it likes, except the one peer of `--once`.
        None if peer.guest.as_ref().is_none_or(Guest::is_first) => outcome.result(),
        _ => Ok(()),
    }
}

/// Says of a peer that ended the connection at once what may be behind it.
fn explain(error: SyncError, peer: &Peer) -> CliError {
    let at_once =
        matches!(error, SyncError::Session(SessionError::Disconnected(Phase::Noise) | SessionError::Network(_)));
    if !at_once || peer.introduced || peer.guest.is_some() {
        return error.into();
    }
    CliError::from(error)
        .explained("is that a multifeed? If it is, it may have no place for another connection; try again in a moment")
}

/// Shows how the store stands with all its peers, if somebody sees it, until this is done.
pub(super) async fn show<T>(multis: &[Multifeed], output: &Output, work: impl Future<Output = T>) -> T {
    if !output.shows_bar() {
        return work.await;
    }
    let mut work = pin!(work);
    let mut look = interval(SHOW_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            done = &mut work => return done,
            Some(standing) = async { look.tick().await; standing(multis).await } => output.set_standing(&standing),
        }
    }
}

/// How multifeeds stand with all their peers. `None` once one is closed.
async fn standing(multis: &[Multifeed]) -> Option<Standing> {
    let mut sum: Option<Standing> = None;
    for multi in multis {
        let standing = Standing::from(multi.sync_state().await.ok()?.all);
        sum = Some(sum.map_or(standing, |sum| sum.and(&standing)));
    }
    sum
}

/// What a peer may bring no more of, and what raises that.
fn limit(error: &SessionError) -> String {
    match error {
        SessionError::Limit { what: "peer.feeds", limit } => {
            format!(
                "the peer brought {limit} new feeds, and may bring no more (--max-feeds-per-peer); it is still served"
            )
        }
        SessionError::Limit { what: "peer.bytes", limit } => {
            format!("the peer brought {limit} bytes, and may bring no more (--max-bytes-per-peer); it is still served")
        }
        SessionError::Limit { what: "feeds", limit } => {
            format!(
                "the store has {limit} feeds of others, and takes no new one: remove some; the peer is still served"
            )
        }
        error => error.to_string(),
    }
}

/// Whether the peer leaves a session that is live here. JS says whether it is live only if it was told.
fn leaves(peer: &Peer, remote: &RemoteHandshake) -> bool {
    peer.live && remote.live != Some(true)
}

pub(super) fn print(event: &SyncEvent, peer: &mut Peer, output: &Output) -> Result<(), CliError> {
    // How many feeds a peer brings is bounded, so all of them are said; each other line counts.
    let counts = match event {
        SyncEvent::Ready(remote) => leaves(peer, remote),
        SyncEvent::Proven => false,
        SyncEvent::Feed { .. } => !peer.is_proven(),
        _ => true,
    };
    let may_say = match event {
        SyncEvent::Damaged { .. } => peer.problems.may_say() && peer.may_say(),
        _ => !counts || peer.may_say(),
    };
    peer.apart.note(event);
    peer.introduced |= may_say && matches!(event, SyncEvent::Connected { .. });
    if !may_say {
        return Ok(());
    }
    let who = &peer.who;
    match event {
        SyncEvent::Connected { .. } => output.print(|| format!("{who}connected"), &Event::Connected),
        SyncEvent::Ready(remote) if leaves(peer, remote) => {
            let people = || format!("{who}the peer is not live: it leaves once both hold the same");
            output.print(people, &Event::PeerNotLive)
        }
        SyncEvent::Feed { key, name } => {
            let key = key.to_string();
            output.print(|| format!("{who}new feed {key}, named {name}"), &Event::Feed { key: key.clone(), name })
        }
        SyncEvent::RemoteFeeds { keys } => {
            let feeds: Vec<String> = keys.iter().map(ToString::to_string).collect();
            let people = || format!("{who}the peer shares {}", count(feeds.len() as u64, "feed"));
            output.print(people, &Event::RemoteFeeds { feeds: feeds.clone() })
        }
        SyncEvent::TooLarge { key, index, size } => {
            let people = || format!("{who}feed {key}: block {index} has {size} bytes, too many to be sent to any peer");
            output.print(people, &Event::TooLarge { key: key.to_string(), block: *index, bytes: *size })
        }
        SyncEvent::SlowBlock { key, index, size, per_second } => {
            let seconds = size / (*per_second).max(1);
            let message = format!(
                "feed {key}: block {index} of {size} bytes takes about {seconds} s to send at {per_second} bytes a second; a JavaScript peer \
                 gives up after 20 s without an answer"
            );
            let event = Event::SlowBlock {
                key: key.to_string(),
                block: *index,
                bytes: *size,
                bytes_per_second: *per_second,
                message: &message,
            };
            output.print(|| format!("{who}{message}"), &event)
        }
        SyncEvent::Damaged { key, block, reason, code, repairable } => {
            const MENDED: &str = "(`multifeed verify --repair` mends it)";
            let people = || match (block, *code) {
                (Some(block), _) => {
                    format!("{who}block {block} of feed {key} cannot be sent, others are {MENDED}: {reason}")
                }
                // What helps against that is among the reason.
                (None, "ERR_LIST_LOST") => format!("{who}feed {key} is not taken: {reason}"),
                (None, _) if *repairable => {
                    format!("{who}feed {key} is damaged here, and is not synced {MENDED}: {reason}")
                }
                (None, "ERR_STORE_DAMAGED") => format!("{who}feed {key} is damaged here, and is not synced: {reason}"),
                // The system does not let its files be read or written, or another program has them.
                (None, _) => {
                    format!("{who}feed {key} is not synced: {reason}; put that right, and sync again")
                }
            };
            let key = Some(key.to_string());
            output.print(people, &Event::Damaged { key, name: None, block: *block, message: reason })
        }
        SyncEvent::Conflict { key, conflict } => {
            let lengths = [conflict.held_length, conflict.length];
            let [here, there] = lengths;
            let people = || {
                format!(
                    "{who}feed {key} has two histories, both signed by its writer: one of {here} blocks here, one of {there} at the \
                     peer; it is not synced with it (multifeed.conflicts in the store is the evidence)"
                )
            };
            output.print(people, &Event::Conflict { key: key.to_string(), lengths })
        }
        SyncEvent::WriterBehind { key, held, len } => {
            let people = || {
                format!(
                    "{who}feed {key} is written here, and the peer has more of it: {len} blocks, of which {held} were here; this store is an \
                     old copy, or its key is on another device too"
                )
            };
            output.print(people, &Event::WriterBehind { key: key.to_string(), lengths: [*held, *len] })
        }
        SyncEvent::OffersRefused { feeds, limit } => {
            let (feeds, limit) = (*feeds, u64::try_from(*limit).unwrap_or(u64::MAX));
            let people = || format!("{who}{} more than the {limit} that a peer may offer", count(feeds, "feed"));
            output.print(people, &Event::OffersRefused { feeds, limit })
        }
        SyncEvent::LimitReached(error) => {
            let message = limit(error);
            output.print(|| format!("{who}{message}"), &Event::LimitReached { message: message.clone() })
        }
        SyncEvent::DiskFull { reason } => {
            let people = || format!("{who}nothing new is taken, and serving goes on: {reason}");
            output.print(people, &Event::DiskFull { message: reason })
        }
        SyncEvent::SpaceFreed => {
            output.print(|| format!("{who}the disk has room again: taking goes on"), &Event::SpaceFreed)
        }
        // `multifeed::session` logs it.
        _ => Ok(()),
    }
}
