//! What a remote is asked that no block answers: the place of a byte, and how long the feed has become.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::replication::wants::{Question, WantId, Wants};
use crate::sets::sparse_bits::SparseBits;

/// The questions to one remote, one at a time. hypercore answers with the nodes of a block, and does not answer a seek that
/// repeats the one before.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: Option<Waiting>,
    /// What was asked for each want, so that it is not asked again before the remote has more, or more is known here.
    spent: BTreeMap<WantId, (u64, Range<u64>)>,
}

#[derive(Debug)]
struct Waiting {
    want: WantId,
    index: u64,
    seek: bool,
}

impl Questions {
    /// The next block to ask about, and the byte to seek (0 for none).
    pub(super) fn next(&mut self, wants: &Wants, has: &SparseBits, remote_len: u64) -> Option<(u64, u64)> {
        if self.waiting.is_some() || wants.questions().is_empty() {
            return None;
        }
        self.spent.retain(|id, _| wants.questions().contains_key(id));
        let (want, question, index) = wants
            .questions()
            .iter()
            .find_map(|(&id, question)| Some((id, question, self.subject(id, question, has, remote_len)?)))?;
        self.spent.insert(want, (remote_len, question.span.clone()));
        self.waiting = Some(Waiting { want, index, seek: question.byte > 0 });
        Some((index, question.byte))
    }

    /// The block to ask about, if asking may help.
    fn subject(&self, id: WantId, question: &Question, has: &SparseBits, remote_len: u64) -> Option<u64> {
        let seeks_in_pair = question.byte > 0 && question.needs_block();
        let asked = self.spent.get(&id).is_some_and(|(len, span)| *len == remote_len && *span == question.span);
        if seeks_in_pair || asked { None } else { has.first_in(question.span.clone(), None) }
    }

    /// Whether something was asked and not answered.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether a want was asked about and has no answer yet.
    pub(super) fn is_asked(&self, id: WantId) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.want == id)
    }

    /// Whether this remote can still be asked about a want, or for the block that decides it.
    pub(super) fn is_open(&self, wants: &Wants, id: WantId, has: &SparseBits, remote_len: u64) -> bool {
        let Some(question) = wants.questions().get(&id) else { return false };
        let block = question.byte > 0 && question.needs_block() && has.first_in(question.span.clone(), None).is_some();
        block || self.subject(id, question, has, remote_len).is_some()
    }

    /// The nodes of a block came. A seek is answered for whatever block has the byte. Whether something was asked.
    pub(super) fn answered(&mut self, index: u64) -> bool {
        let fits = self.waiting.as_ref().is_some_and(|waiting| waiting.seek || waiting.index == index);
        if fits {
            self.waiting = None;
        }
        fits
    }

    /// The remote lost these blocks.
    pub(super) fn lost(&mut self, blocks: Range<u64>) {
        if self.waiting.as_ref().is_some_and(|waiting| blocks.contains(&waiting.index)) {
            self.waiting = None;
        }
    }

    /// The block whose hashes were asked for and did not come, which is not waited for any more.
    pub(super) fn take_waiting(&mut self) -> Option<u64> {
        Some(self.waiting.take()?.index)
    }
}
