//! Which process holds the lock of a store, as far as the system says.

use std::path::Path;

/// The process that has the store's lock, for people.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn holder(store: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(store.join("multifeed.lock")).ok()?;
    let device = meta.dev();
    let place = format!("{:02x}:{:02x}:{}", rustix::fs::major(device), rustix::fs::minor(device), meta.ino());
    // 1: FLOCK  ADVISORY  WRITE 708 fe:00:262279 0 EOF
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let process = fields
        .filter(|fields| fields.get(5) == Some(&place.as_str()))
        .filter_map(|fields| fields.get(4)?.parse::<u32>().ok())
        // What could not be opened is locked elsewhere, in a folder of a feed.
        .find(|process| *process != std::process::id())?;
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(format!("process {process}, {}", name.trim_end()))
}

/// The system does not say.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn holder(_store: &Path) -> Option<String> {
    None
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    #[test]
    fn the_process_itself_is_not_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let lock = std::fs::File::create(dir.path().join("multifeed.lock")).unwrap();
        lock.lock().unwrap();
        assert_eq!(super::holder(dir.path()), None);
    }
}
