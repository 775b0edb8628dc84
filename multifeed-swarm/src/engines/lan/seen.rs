//! The announcements of others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use mdns_sd::ResolvedService;
use multifeed_tokio::PeerKey;

use crate::discovery::{DiscoveryEvent, Found, Route, Topic};
use crate::engines::lan::near::Near;
use crate::engines::lan::{TOPICS, VERSION};

/// Announcements that are remembered. Later ones are not, until some of these are gone.
const MOST: usize = 1024;

/// Addresses of one announcement that are looked at.
const ADDRESSES: usize = 16;

/// How often one announcement is asked whether it still holds.
const DOUBT_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Seen {
    announcements: BTreeMap<String, Announcement>,
    near: Near,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Announcement {
    key: PeerKey,
    topics: BTreeSet<Topic>,
    routes: BTreeSet<Route>,
    doubted: Option<Instant>,
}

impl Seen {
    pub(super) fn new(loopback_only: bool) -> Self {
        Self { announcements: BTreeMap::new(), near: Near::new(loopback_only) }
    }

    /// This machine's networks are others.
    pub(super) fn networks_changed(&mut self) {
        self.near.changed();
    }

    /// An announcement is there, or says something else than before.
    pub(super) fn resolved(&mut self, service: &ResolvedService, own: &PeerKey, events: &mut VecDeque<DiscoveryEvent>) {
        let announcement = self.read(service).filter(|announcement| announcement.key != *own);
        let is_known = self.announcements.contains_key(&service.fullname);
        if !is_known && self.announcements.len() >= MOST {
            return;
        }
        let Some(announcement) = announcement else { return self.removed(&service.fullname, events) };
        let before = self.announcements.insert(service.fullname.clone(), announcement.clone());
        if let Some(before) = before {
            self.lose(&before, events);
        }
        events.extend(announcement.report().map(DiscoveryEvent::Found));
    }

    /// An announcement is gone.
    pub(super) fn removed(&mut self, fullname: &str, events: &mut VecDeque<DiscoveryEvent>) {
        if let Some(before) = self.announcements.remove(fullname) {
            self.lose(&before, events);
        }
    }

    /// Reports what is no longer announced, by this announcement or another one of the same peer.
    fn lose(&self, before: &Announcement, events: &mut VecDeque<DiscoveryEvent>) {
        for route in &before.routes {
            let same = |now: &&Announcement| now.key == before.key && now.routes.contains(route);
            let there: BTreeSet<Topic> =
                self.announcements.values().filter(same).flat_map(|now| now.topics.iter().copied()).collect();
            let topics: Vec<Topic> = before.topics.difference(&there).copied().collect();
            if !topics.is_empty() {
                events.push_back(DiscoveryEvent::Lost { route: route.clone(), key: Some(before.key), topics });
            }
        }
    }

    /// All that is there, or all of one topic.
    pub(super) fn report<'a>(&'a self, topic: Option<&'a Topic>) -> impl Iterator<Item = Found> + 'a {
        let is_meant = move |now: &&Announcement| topic.is_none_or(|topic| now.topics.contains(topic));
        self.announcements.values().filter(is_meant).flat_map(Announcement::report)
    }

    /// Something that was announced cannot be reached. Which announcements are to be asked whether they still hold.
    pub(super) fn doubt(&mut self, route: &Route) -> Vec<String> {
        let mut doubted = Vec::new();
        for (fullname, now) in self.announcements.iter_mut().filter(|(_, now)| now.routes.contains(route)) {
            if now.doubted.is_none_or(|when| when.elapsed() >= DOUBT_EVERY) {
                now.doubted = Some(Instant::now());
                doubted.push(fullname.clone());
            }
        }
        doubted
    }

    /// What an announcement says; `None` if it is of no use.
    fn read(&mut self, service: &ResolvedService) -> Option<Announcement> {
        let text = &service.txt_properties;
        if text.get_property_val_str("v") != Some(VERSION) {
            return None;
        }
        let key = PeerKey::new(digits(text.get_property_val_str("k")?)?);
        let topic = |n| Some(Topic::new(digits(text.get_property_val_str(&format!("t{n}"))?)?));
        let topics: BTreeSet<Topic> = (0..TOPICS).map_while(topic).collect();
        let addresses = service.addresses.iter().take(ADDRESSES);
        let addresses = addresses.filter_map(|ip| self.near.address(ip, service.port));
        let routes: BTreeSet<Route> = addresses.map(|address| Route::Address(address.to_string())).collect();
        let doubted = self.announcements.get(&service.fullname).and_then(|before| before.doubted);
        (!topics.is_empty() && !routes.is_empty()).then_some(Announcement { key, topics, routes, doubted })
    }
}

impl Announcement {
    fn report(&self) -> impl Iterator<Item = Found> + '_ {
        self.routes.iter().map(|route| Found {
            route: route.clone(),
            key: Some(self.key),
            topics: self.topics.iter().copied().collect(),
            kept: false,
        })
    }
}

/// 32 bytes as 64 hex digits.
fn digits(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}
