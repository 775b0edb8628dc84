//! Whether the commit that changed the record says why.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::record::{Record, output};

/// What the line of a commit's body begins with that says why a count grew.
pub(crate) const REASON: &str = "Counts:";

/// Growth of a recorded count that nobody has to explain, in percent. Smaller than what a commit may cost without a new record: many small
/// steps are a large one.
const UNEXPLAINED: f64 = 0.5;

/// Looks at the last commit that changed the record, which is in `folder`: if a count grew in it, its body says why.
///
/// Returns what a person has to know, if that cannot be seen: outside of a repository, in a clone whose history is cut off before that commit's
/// parent, or as the record is not committed yet.
///
/// # Errors
/// A count grew in that commit, and it does not say why.
pub(crate) fn check(on_record: &Record, folder: &Path) -> Result<Vec<String>> {
    let git = |arguments: &[&str]| output("git", arguments, folder);
    let commit = match git(&["log", "-1", "--format=%H", "--", "record.txt"]) {
        Ok(commit) => commit,
        Err(error) => {
            return Ok(vec![format!("NOT CHECKED: whether the commit that changed the counts says why: {error:#}")]);
        }
    };
    let at = |revision: &str| Record::parse(&git(&["show", &format!("{revision}:./record.txt")]).ok()?).ok();
    let mut notes = Vec::new();
    if at("HEAD").as_ref() != Some(on_record) {
        notes.push(format!(
            "record.txt is not committed yet: if a count grew, the body of the commit has to say why (`{REASON} ...`)"
        ));
    }
    if commit.is_empty() {
        return Ok(notes);
    }
    let parent = format!("{commit}^");
    // To git, the first commit of a history that is cut off adds every file.
    if git(&["rev-parse", "--verify", "--quiet", &parent]).is_err() {
        if git(&["rev-parse", "--is-shallow-repository"])? == "true" {
            notes.push(
                "NOT CHECKED: whether the commit that changed the counts says why. This clone's history begins after it. Get the rest \
                 with `git fetch --unshallow`, and run this again."
                    .to_owned(),
            );
        }
        return Ok(notes);
    }
    let (Some(then), Some(before)) = (at(&commit), at(&parent)) else { return Ok(notes) };
    let body = git(&["log", "-1", "--format=%b", &commit])?;
    let unexplained = unexplained(&then, &before, &body);
    ensure!(
        unexplained.is_empty(),
        "commit {commit} records that these grew, and no line of its body begins with `{REASON}` and says why: {}",
        unexplained.join(", ")
    );
    Ok(notes)
}

/// The counts that grew from one record to the next without a reason. If the tools differ, so may all counts.
fn unexplained(now: &Record, before: &Record, body: &str) -> Vec<String> {
    let reason = body.lines().filter_map(|line| line.strip_prefix(REASON)).any(|reason| !reason.trim().is_empty());
    if reason || now.tools != before.tools {
        return Vec::new();
    }
    let grew = now.growth(before).filter(|(_, growth)| growth.is_some_and(|percent| percent > UNEXPLAINED));
    grew.map(|(count, _)| count.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Count;

    fn record(rustc: &str, counts: &[(&str, u64)]) -> Record {
        let tools = vec![("rustc".to_owned(), rustc.to_owned())];
        let count = |&(name, instructions): &(&str, u64)| Count { name: name.to_owned(), instructions };
        Record { tools, counts: counts.iter().map(count).collect() }
    }

    /// A repository of commits, each of a record with one count and of a body.
    fn repository(folder: &Path, commits: &[(u64, &str)]) {
        git(folder, &["init", "--quiet"]);
        for (number, (count, body)) in commits.iter().enumerate() {
            std::fs::write(folder.join("record.txt"), record("1", &[("a", *count)]).to_string()).unwrap();
            std::fs::write(folder.join("other"), number.to_string()).unwrap();
            git(folder, &["add", "."]);
            git(folder, &["commit", "--quiet", "-m", "subject", "-m", body]);
        }
    }

    fn git(folder: &Path, arguments: &[&str]) {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"];
        output("git", &[&who[..], arguments].concat(), folder).unwrap();
    }

    #[test]
    fn the_last_commit_that_changed_the_record_says_why() {
        for (commits, explained) in [
            (&[(1000, "First.")][..], true),
            (&[(1000, "First."), (1010, "Slower.")], false),
            (&[(1000, "First."), (1010, "Counts: slower.")], true),
            (&[(1000, "First."), (1010, "Slower."), (1010, "Other.")], false),
            (&[(1000, "First."), (1010, "Counts: slower."), (1010, "Other.")], true),
            (&[(1000, "First."), (990, "Faster.")], true),
        ] {
            let folder = tempfile::tempdir().unwrap();
            repository(folder.path(), commits);
            let on_record = record("1", &[("a", commits[commits.len() - 1].0)]);
            let checked = check(&on_record, folder.path());
            assert_eq!(checked.as_ref().ok(), explained.then_some(&Vec::new()), "{commits:?}: {checked:?}");
            let not_committed = check(&record("1", &[("a", 7)]), folder.path());
            assert_eq!(not_committed.map(|notes| notes.len()).ok(), explained.then_some(1));
        }
    }

    #[test]
    fn a_history_that_is_cut_off_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, grown) = (folder.path().join("whole"), record("1", &[("a", 1010)]));
        std::fs::create_dir(&whole).unwrap();
        repository(&whole, &[(1000, "First."), (1010, "Slower."), (1010, "Other.")]);
        let url = format!("file://{}", whole.display());
        // The commit that changed it is not there, is there without its parent, and with it.
        for (depth, seen) in [("1", false), ("2", false), ("3", true)] {
            let clone = folder.path().join(depth);
            git(folder.path(), &["clone", "--quiet", "--depth", depth, &url, depth]);
            match check(&grown, &clone) {
                Ok(notes) => {
                    assert!(!seen && notes.len() == 1 && notes[0].contains("--unshallow"), "{depth}: {notes:?}")
                }
                Err(error) => assert!(seen && error.to_string().contains("no line"), "{depth}: {error:#}"),
            }
        }
        let nowhere = check(&grown, folder.path()).unwrap();
        assert!(nowhere.len() == 1 && nowhere[0].contains("NOT CHECKED"), "{nowhere:?}");
    }

    #[test]
    fn what_grew_needs_a_reason() {
        let before = record("1", &[("a", 1000), ("b", 1000)]);
        let grew = record("1", &[("a", 1004), ("b", 1006), ("new", 7)]);
        assert_eq!(unexplained(&grew, &before, "It is slower.\nCounts:  \n"), ["b"]);
        assert!(unexplained(&grew, &before, "Body.\n\nCounts: b hashes twice, to be safe.\n").is_empty());
        assert!(unexplained(&before, &grew, "").is_empty());
        assert!(unexplained(&record("2", &[("a", 9999)]), &before, "").is_empty());
    }
}
