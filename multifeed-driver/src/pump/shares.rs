//! What a stream's session holds of the budgets of all sessions, and what it lets its stores send.

use std::task::Context;
use std::time::Duration;

use bytes::BytesMut;
use futures_io::{AsyncRead, AsyncWrite};
use multifeed_proto::SessionError;

use super::{Half, Pump, Stage};
use crate::link::Grant;
use crate::member::Member;
use crate::outflow::Queue;
use crate::runtime::Runtime;

/// Over what time [`PumpOptions::receive_rate`](crate::PumpOptions::receive_rate) is measured.
const RATE_TIME: Duration = Duration::from_secs(10);

impl<T: AsyncRead + AsyncWrite + Unpin, R: Runtime> Pump<T, R> {
    /// A large message that comes slowly, or a remote that reads slowly, while other sessions wait for what that holds of a budget, ends its
    /// session. When to look again.
    pub(super) fn rate(&mut self, now: Duration) -> Result<Option<Duration>, ()> {
        if self.stage != Stage::Running {
            return Ok(None);
        }
        let message = self.rate_message(now)?;
        let taken = self.session.totals().bytes_out.saturating_sub(self.out.len() as u64);
        match self.outflow.look(self.queue(), taken, self.options.send_rate, now) {
            Ok(reader) => Ok(message.into_iter().chain(reader).min()),
            Err((bytes, waited)) => {
                self.end(Some(SessionError::SlowReader { bytes, waited }), now);
                // It would take the rest no faster.
                (self.write, self.read) = (Half::Over, Half::Over);
                Err(())
            }
        }
    }

    /// A large message that comes slowly, while other sessions wait for what it holds of the budget, ends its session. When to look again.
    fn rate_message(&mut self, now: Duration) -> Result<Option<Duration>, ()> {
        let is_large = self.session.incoming_bytes() > self.options.receive_bytes;
        let is_read = self.stage == Stage::Running && self.read == Half::Open && !self.drains && self.has_room();
        if !is_large || !is_read || !self.share.is_held() {
            self.rated = None;
            return Ok(None);
        }
        let came = self.session.totals().bytes_in;
        let (since, then) = *self.rated.get_or_insert((now, came));
        let (waited, bytes) = (now.saturating_sub(since), came.saturating_sub(then));
        if waited >= RATE_TIME {
            let enough = self.options.receive_rate.saturating_mul(waited.as_secs());
            if bytes < enough && self.share.is_in_demand() {
                self.end(Some(SessionError::SlowMessage { bytes, waited }), now);
                return Err(());
            }
            self.rated = Some((now, came));
            return Ok(Some(now.saturating_add(RATE_TIME)));
        }
        Ok(Some(since.saturating_add(RATE_TIME)))
    }

    /// Whether the message that is arriving may be read on. One of more than the session's own bytes waits until the store took what came
    /// before it, and then for a share of the budget, which it keeps until the store took it.
    pub(super) fn has_share(&mut self, cx: &Context<'_>) -> bool {
        let own = self.options.receive_bytes;
        // One that was taken off the stream holds up nobody any more.
        let pinned: usize = self.synced().map(Member::pinned).sum();
        let message = self.session.incoming_bytes().saturating_sub(own);
        let number = self.session.totals().messages_in;
        self.drains = false;
        if message == 0 {
            // What it holds was for what waits.
            return pinned > own || self.share.covers(0, 0, cx);
        }
        if self.granted == Some(number) && self.share.is_held() {
            return true;
        }
        if pinned > own {
            self.drains = true;
            return false;
        }
        let covers = self.share.covers(message, 0, cx);
        self.granted = covers.then_some(number);
        covers
    }

    /// What waits to be written.
    fn queue(&self) -> Queue {
        let (out, unsent) = (self.out.len(), self.session.unsent());
        let granted = self.synced().map(|member| usize::try_from(member.granted).unwrap_or(0)).sum();
        let filled = if out > 0 { self.filled.max(out) } else { 0 };
        Queue { bytes: out.saturating_add(unsent), memory: filled.saturating_add(unsent), granted }
    }

    /// Lets the stores send what there is room for, and gives them their events. Whether any went.
    pub(super) fn grant(&mut self, cx: &Context<'_>, now: Duration) -> bool {
        let is_on = self.stage != Stage::Closed;
        let needs = |member: &Member| member.orders.needed.filter(|_| is_on && member.is_synced());
        let needy = self.members.iter().position(|member| needs(member).is_some());
        let needed = needy.and_then(|at| self.members.get(at)).and_then(needs);
        let queue = self.queue();
        let plan = self.outflow.plan(queue, needed, now, cx);
        if plan.revokes && queue.bytes == 0 && self.out.capacity() > 0 {
            self.out = BytesMut::new();
            self.session.shrink();
        }
        let share = self.synced().count().max(1);
        let free = plan.window.min(self.session.send_credit()).saturating_sub(queue.bytes) / share;
        let own = self.outflow.own() / share;
        let mut moved = false;
        for (at, member) in self.members.iter_mut().enumerate() {
            let mut grant = Grant::default();
            if member.is_synced() && is_on {
                grant.credit = if plan.revokes { member.revoke(own) } else { 0 };
                grant.credit += member.credit(free, plan.window / share);
                if let Some(bytes) = plan.room.filter(|_| needy == Some(at)) {
                    grant.room = member.give_room(bytes);
                }
            }
            moved |= member.deliver(grant);
        }
        moved
    }
}
