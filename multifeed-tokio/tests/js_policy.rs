//! What a policy offers and takes, with multifeed 6 as the other side, in both roles.

use crate::common;

use std::sync::{Arc, Mutex};

use common::{finish, hang_up_js, held, js, run, socket};
use multifeed_testkit::js::{JsPeer, TIMEOUT};
use multifeed_tokio::{
    FeedKey, Json, ManifestFields, Multifeed, Options, PeerLimits, Policy, Remote, Replicate, Role, SyncEvent,
};
use serde_json::json;

/// Offers the writers of some names, and takes of a remote's feeds those of a kind.
#[derive(Debug, Clone, Default)]
struct Rules {
    hidden: Option<&'static str>,
    kind: Option<&'static str>,
    limits: PeerLimits,
}

impl Policy for Rules {
    fn offers(&self, _: &FeedKey, writer: Option<&str>, _: &Remote) -> bool {
        writer.is_none() || writer != self.hidden
    }

    fn choose(&self, keys: &mut Vec<FeedKey>, fields: Option<&ManifestFields>, _: &Remote) {
        let Some(kind) = self.kind else { return };
        // As a JS application might say it: {"kinds": {"chat": [key…]}}
        let kinds = fields.and_then(|fields| fields.get("kinds"));
        let kinds: serde_json::Value =
            kinds.map(|kinds| serde_json::from_str(kinds.as_str()).unwrap()).unwrap_or_default();
        let wanted = kinds[kind].as_array().cloned().unwrap_or_default();
        keys.retain(|key| wanted.contains(&json!(key.to_string())));
    }

    fn fields(&self, keys: &[FeedKey], _: &Remote) -> Option<ManifestFields> {
        let said =
            json!({"kinds": {"ours": keys.iter().map(FeedKey::to_string).collect::<Vec<_>>()}, "ö": [1.5, null]});
        ManifestFields::new(&Json::new(said.to_string())?)
    }

    fn limits(&self, _: &Remote) -> Option<PeerLimits> {
        Some(self.limits)
    }
}

async fn with_policy(rules: Rules) -> Multifeed {
    Multifeed::in_memory(Options::default().with_policy(rules)).await.unwrap()
}

const ROLES: [Role; 2] = [Role::Initiator, Role::Responder];

/// JS gets what is offered to it and nothing else, and what is said beside it; it is taken from as the policy has it.
#[test]
fn js_gets_what_it_is_offered_and_gives_what_is_wanted() {
    run(async {
        for role in ROLES {
            // JS says of its feeds what they are, by their keys, which are known beforehand.
            let seeds = ["11", "22", "33"].map(|seed| seed.repeat(32));
            let mut namer = js(|| JsPeer::spawn(&[]));
            let keys = seeds.clone().map(|seed| {
                let reply = js(|| namer.call(json!({"cmd": "writer", "name": seed, "seed": seed})));
                reply["key"].as_str().unwrap().to_owned()
            });
            drop(namer);
            let said = json!({"kinds": {"chat": [keys[0], keys[2]], "media": [keys[1]]}}).to_string();
            for live in [false, true] {
                let mut options = vec!["--manifest-fields", &said];
                options.extend(live.then_some("--live"));
                let mut peer = js(|| JsPeer::spawn(&options));
                for seed in &seeds {
                    js(|| peer.call(json!({"cmd": "writer", "name": seed, "seed": seed})));
                    js(|| peer.append(seed, 4, 50, 1));
                }
                let multi = with_policy(Rules { hidden: Some("hidden"), kind: Some("chat"), ..Rules::default() }).await;
                let shown = multi.writer("shown").await.unwrap();
                shown.append_batch(["a", "b", "c"]).await.unwrap();
                let hidden = multi.writer("hidden").await.unwrap();
                hidden.append("secret").await.unwrap();

                let sync =
                    multi.replicate(socket(&mut peer, role).await, role, Replicate { live, ..Replicate::default() });
                if live {
                    held(&multi, &keys[0], 4).await;
                    held(&multi, &keys[2], 4).await;
                    js(|| peer.wait(4, 15, multifeed_testkit::js::TIMEOUT));
                    hidden.append("another").await.unwrap();
                    shown.append("d").await.unwrap();
                    js(|| peer.wait(4, 16, multifeed_testkit::js::TIMEOUT));
                    sync.close();
                }
                finish(sync).await;
                assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());

                let told = js(|| peer.event("manifest"));
                assert_eq!(told["keys"], json!([shown.key().to_string()]));
                assert_eq!(told["fields"], json!({"kinds": {"ours": [shown.key().to_string()]}, "ö": [1.5, null]}));
                let theirs: Vec<String> = js(|| peer.feeds()).into_iter().map(|feed| feed.key).collect();
                assert!(theirs.contains(&shown.key().to_string()) && !theirs.contains(&hidden.key().to_string()));
                let ours: Vec<String> = multi.feeds().iter().map(|feed| feed.key().to_string()).collect();
                assert_eq!(ours.len(), 4, "{ours:?}");
                assert!(ours.contains(&keys[0]) && ours.contains(&keys[2]) && !ours.contains(&keys[1]));
            }
        }
    });
}

/// Feeds that are neither offered nor wanted now, and how many JS may bring.
#[derive(Debug, Clone, Default)]
struct Changing(Arc<Mutex<(Vec<String>, PeerLimits)>>);

impl Changing {
    fn set(&self, refused: &[&str], feeds: usize) {
        let limits = PeerLimits { feeds, ..PeerLimits::default() };
        *self.0.lock().unwrap() = (refused.iter().map(|&key| key.to_owned()).collect(), limits);
    }

    fn takes(&self, key: &FeedKey) -> bool {
        !self.0.lock().unwrap().0.contains(&key.to_string())
    }
}

impl Policy for Changing {
    fn offers(&self, key: &FeedKey, _: Option<&str>, _: &Remote) -> bool {
        self.takes(key)
    }

    fn wants(&self, key: &FeedKey, _: &Remote) -> bool {
        self.takes(key)
    }

    fn limits(&self, _: &Remote) -> Option<PeerLimits> {
        Some(self.0.lock().unwrap().1)
    }
}

/// While a session with JS runs: feeds are offered to it and taken from it that were not before, leave it, and come back.
#[test]
fn js_hears_of_a_policy_that_changes() {
    run(async {
        for role in ROLES {
            let rules = Changing::default();
            let multi = Multifeed::in_memory(Options::default().with_policy(rules.clone())).await.unwrap();
            let (ours, late) = (multi.writer("ours").await.unwrap(), multi.writer("late").await.unwrap());
            for feed in [&ours, &late] {
                feed.append("a block").await.unwrap();
            }
            let mut peer = js(|| JsPeer::spawn(&["--live"]));
            let [theirs, other] = ["theirs", "other"].map(|name| js(|| peer.append(name, 3, 50, 1)));
            rules.set(&[&late.key().to_string(), &other], 100);
            let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::live());
            held(&multi, &theirs, 3).await;
            js(|| peer.wait(3, 7, TIMEOUT));
            assert!(multi.feed(&other).is_none());

            rules.set(&[], 100);
            multi.policy_changed().await.unwrap();
            held(&multi, &other, 3).await;
            js(|| peer.wait(4, 8, TIMEOUT));

            // One of each side leaves, and the other ones go on.
            rules.set(&[&ours.key().to_string(), &theirs], 100);
            multi.policy_changed().await.unwrap();
            for feed in [&ours, &late] {
                feed.append("another").await.unwrap();
            }
            for name in ["theirs", "other"] {
                js(|| peer.append(name, 1, 50, 2));
            }
            held(&multi, &other, 4).await;
            // Its own eight, and three of ours.
            js(|| peer.wait(4, 11, TIMEOUT));
            assert_eq!(multi.feed(&theirs).unwrap().len(), 3);
            let at_js = js(|| peer.feeds()).into_iter().find(|feed| feed.key == ours.key().to_string()).unwrap();
            assert_eq!(at_js.length, 1);

            // JS opens a feed's channel once on a stream: they come back with the next one. It brought two, which is all that it may.
            rules.set(&[], 2);
            multi.policy_changed().await.unwrap();
            let third = js(|| peer.append("third", 3, 50, 3));
            late.append("at last").await.unwrap();
            js(|| peer.wait(5, 15, TIMEOUT));
            assert!(multi.feed(&third).is_none());
            rules.set(&[], 3);
            multi.policy_changed().await.unwrap();
            held(&multi, &third, 3).await;
            hang_up_js(sync, &mut peer).await;
            let sync = multi.replicate(socket(&mut peer, role).await, role, Replicate::live());
            held(&multi, &theirs, 4).await;
            js(|| peer.wait(5, 16, TIMEOUT));
            hang_up_js(sync, &mut peer).await;
        }
    });
}

/// A JS peer brings no more than it may, is served all the same, and its session ends well.
#[test]
fn js_brings_as_much_as_it_may() {
    run(async {
        for role in ROLES {
            for limits in
                [PeerLimits { feeds: 2, ..PeerLimits::default() }, PeerLimits { bytes: 2000, ..PeerLimits::default() }]
            {
                let mut peer = js(|| JsPeer::spawn(&[]));
                for name in ["a", "b", "c", "d"] {
                    js(|| peer.append(name, 10, 1000, 1));
                }
                let multi = with_policy(Rules { limits, ..Rules::default() }).await;
                multi.writer("ours").await.unwrap().append_batch(["a", "b", "c"]).await.unwrap();
                let events = finish(multi.replicate(socket(&mut peer, role).await, role, Replicate::default())).await;
                let reached: Vec<_> =
                    events.iter().filter(|event| matches!(event, SyncEvent::LimitReached(_))).collect();
                assert_eq!(reached.len(), 1, "{reached:?}");
                assert_eq!(js(|| peer.event("ended"))["clean"], true, "{}", peer.history());
                js(|| peer.wait(5, 43, multifeed_testkit::js::TIMEOUT));
                let theirs: u64 =
                    multi.feeds().iter().filter(|feed| !feed.writable()).map(|feed| feed.downloaded()).sum();
                assert_eq!(theirs, if limits.feeds == 2 { 20 } else { 2 });
            }
        }
    });
}
