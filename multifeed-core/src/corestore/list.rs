//! Which cores a corestore has on its disk.

use std::collections::BTreeMap;

use multifeed_proto::{DiscoveryKey, FeedKey};

use super::Corestore;
use crate::error::{CorestoreError, StoreError};
use crate::storage::core_list::{CoreList, ListedCore};
use crate::storage::{CoreStorage, FileId, FileKind, Slot, Storage};

impl<S: CoreStorage> Corestore<S> {
    /// Lists the cores that are on the disk, whether they are open or not, about 200 bytes each. A folder without a `key` is no core: JS leaves
    /// one when it is asked for a discovery key that it does not know.
    ///
    /// JS lists the cores that were opened, by namespace; a namespace leaves no trace on the disk.
    ///
    /// # Errors
    /// [`CorestoreError::TooManyCores`] if there are more than [`Limits::cores_listed`](crate::Limits::cores_listed); the storage's error.
    pub fn list(&mut self) -> Result<CoreList, CorestoreError> {
        let open: BTreeMap<_, _> = self.open.iter().map(|(core, open)| (*core, open.slot)).collect();
        self.list_beside(&open)
    }

    /// As [`list`](Self::list); these cores are open, each in its place.
    pub(super) fn list_beside(&mut self, open: &BTreeMap<DiscoveryKey, Slot>) -> Result<CoreList, CorestoreError> {
        let max = self.limits.cores_listed;
        let folders = self.storage.folders(max).map_err(|error| StoreError::from_store("list", error))?;
        if folders.more {
            return Err(CorestoreError::TooManyCores { max });
        }
        let obstacle = |error| CorestoreError::from(StoreError::from_store("list", error));
        let mut list = CoreList { cores: Vec::new(), problems: folders.obstacles.into_iter().map(obstacle).collect() };
        for core in folders.cores {
            match self.look_beside(core, open)? {
                Ok(listed) => list.cores.extend(listed),
                Err(error) => list.problems.push(error),
            }
        }
        Ok(list)
    }

    /// Fails if there are cores with a `name`, and the master key derives the key of none: they are those of another one. The first that it derives
    /// ends the search; at most [`Limits::cores_listed`](crate::Limits::cores_listed) cores are looked at.
    /// Those in `open` are open, each in its place.
    pub(super) fn check_master_key(&mut self, open: &BTreeMap<DiscoveryKey, Slot>) -> Result<(), CorestoreError> {
        let folders = self.storage.folders(self.limits.cores_listed);
        let mut named = 0;
        for core in folders.map_err(|error| StoreError::from_store("list", error))?.cores {
            match self.look_beside(core, open)? {
                Ok(Some(ListedCore { name: Some(_), .. })) => return Ok(()),
                Err(CorestoreError::NameMismatch { .. }) => named += 1,
                _ => {}
            }
        }
        if named == 0 { Ok(()) } else { Err(CorestoreError::MasterKeyMismatch { named }) }
    }

    /// Looks at a core, which keeps its place if it is open.
    fn look_beside(
        &mut self,
        core: DiscoveryKey,
        open: &BTreeMap<DiscoveryKey, Slot>,
    ) -> Result<Result<Option<ListedCore>, CorestoreError>, StoreError> {
        if let Some(&slot) = open.get(&core) {
            return Ok(self.look_at(core, slot));
        }
        let slot = self.storage.assign(core).map_err(|error| StoreError::from_store("list", error))?;
        let listed = self.look_at(core, slot);
        self.storage.release(slot);
        Ok(listed)
    }

    fn look_at(&mut self, core: DiscoveryKey, slot: Slot) -> Result<Option<ListedCore>, CorestoreError> {
        let Some(key) = self.read_fixed::<32>(core, slot, FileKind::Key)?.map(FeedKey::new) else { return Ok(None) };
        if key.discovery_key() != core {
            return Err(CorestoreError::damaged(core, "key", "it is that of another core"));
        }
        let name = self.read_name(core, slot)?;
        let derived = name.as_ref().map(|name| self.master_key.key_pair(name).public_key());
        if let (Some(name), Some(derived)) = (&name, derived)
            && derived != key
        {
            return Err(CorestoreError::NameMismatch { core, name: name.clone() });
        }
        let secret = FileId::new(slot, FileKind::SecretKey);
        let len = self.storage.files_mut().len(secret);
        let len =
            len.map_err(|error| CorestoreError::of_core(core, StoreError::from_file(secret, "look at", error)))?;
        let writable = name.is_some() || len == Some(64);
        Ok(Some(ListedCore { key, discovery_key: core, name, writable }))
    }
}
