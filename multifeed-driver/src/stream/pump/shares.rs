//! What a stream's session holds of the budgets of all sessions, and what it lets its stores send.

use std::task::Context;
use std::time::Duration;

use bytes::BytesMut;
use futures_io::{AsyncRead, AsyncWrite};
use multifeed_proto::SessionError;

use super::{Half, Pump, Stage};
use crate::pace::Slow;
use crate::runtime::Runtime;
use crate::shared::link::Grant;
use crate::stream::member::Member;
use crate::stream::outflow::Queue;

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
            Err(Slow { bytes, waited }) => {
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
        let is_read = self.read == Half::Open && !self.drains && self.has_room();
        if !is_large || !is_read || self.share.held() == 0 || self.share.waits() {
            self.pace.rest();
            return Ok(None);
        }
        let came = self.session.totals().bytes_in;
        match self.pace.look(came, self.options.receive_rate, now, || self.share.is_in_demand()) {
            Ok(again) => Ok(Some(again)),
            Err(Slow { bytes, waited }) => {
                self.end(Some(SessionError::SlowMessage { bytes, waited }), now);
                Err(())
            }
        }
    }

    /// Whether the message that is arriving may be read on. One of more than the session's own bytes waits until the store took what came
    /// before it, and then for a share of the budget. It keeps the share until the store took the message.
    pub(super) fn has_share(&mut self, cx: &Context<'_>) -> bool {
        let own = self.options.receive_bytes;
        // One that was taken off the stream holds up nobody any more.
        let pinned: usize = self.synced().map(Member::pinned).sum();
        let message = self.session.incoming_bytes().saturating_sub(own);
        let number = self.session.totals().messages_in;
        self.drains = false;
        if message == 0 {
            self.share.leave();
            if pinned <= own {
                // What it holds was for what waits.
                self.share.keep(0);
            }
            return true;
        }
        if self.granted == Some(number) && self.share.held() > 0 {
            return true;
        }
        if pinned > own {
            self.drains = true;
            return false;
        }
        // While it waits it holds nothing, so that no two wait for each other.
        if self.share.held() < message {
            self.share.keep(0);
        }
        let covers = self.share.reserve(message, cx);
        if covers {
            self.share.keep(message);
        }
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
        // In turn, or the first of them would have all.
        let turn = self.outflow.turn;
        let waiting = || self.members.iter().enumerate().filter(|(_, member)| needs(member).is_some());
        let needy =
            waiting().find(|(_, member)| Some(member.root) > turn).or_else(|| waiting().next()).map(|(at, _)| at);
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
                // What is left of the room for a block is no credit for others.
                let revokes = plan.revokes || std::mem::take(&mut member.has_surplus);
                grant.credit = if revokes { member.revoke(own) } else { 0 };
                grant.credit += member.credit(free, plan.window / share);
                if let Some(bytes) = plan.room.filter(|_| needy == Some(at)) {
                    grant.room = member.give_room(bytes);
                    self.outflow.turn = Some(member.root);
                }
            }
            moved |= member.deliver(grant);
        }
        moved
    }
}
