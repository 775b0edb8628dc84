//! Whether the commits that changed the record say why.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::record::{Record, output};

/// What the line of a commit's body begins with that says why a count grew.
pub(crate) const REASON: &str = "Counts:";

/// Growth of a recorded count that nobody has to explain, in percent. Smaller than what a commit may cost without a new record: many small
/// steps are a large one.
const UNEXPLAINED: f64 = 0.5;

const NOT_CHECKED: &str = "NOT CHECKED: whether the commits that changed the counts say why";

/// Looks at all commits that changed the record, which is in `folder`: if a count grew in one, or left the record, its body says why.
///
/// A merge is compared with the largest of its parents' counts. A record that was deleted and added again is compared with the one before.
///
/// Returns what a person has to know, if that cannot be seen: outside of a repository, in a clone whose history is cut off, or as the record is
/// not committed yet.
///
/// # Errors
/// A count grew in a commit, and it does not say why.
pub(crate) fn check(on_record: &Record, folder: &Path) -> Result<Vec<String>> {
    let git = |arguments: &[&str]| output("git", arguments, folder);
    let history = ["log", "--full-history", "--topo-order", "--format=%H %P", "--", "record.txt"];
    let commits = match git(&history) {
        Ok(commits) => commits,
        Err(error) => return Ok(vec![format!("{NOT_CHECKED}: {error:#}")]),
    };
    let at = |revision: &str| Record::parse(&git(&["show", &format!("{revision}:./record.txt")]).ok()?).ok();
    let mut notes = Vec::new();
    if at("HEAD").as_ref() != Some(on_record) {
        notes.push(format!(
            "record.txt is not committed yet: if a count grew, the body of the commit has to say why (`{REASON} ...`)"
        ));
    }
    if git(&["rev-parse", "--is-shallow-repository"])? == "true" {
        notes.push(format!(
            "{NOT_CHECKED} before this clone's history begins. Get the rest with `git fetch --unshallow`, and run this again."
        ));
    }
    // From the oldest, so that there is one before a record that was added again.
    let mut last: Option<Record> = None;
    for line in commits.lines().rev() {
        let (commit, parents) = line.split_once(' ').unwrap_or((line, ""));
        let Some(then) = at(commit) else { continue };
        let parents: Vec<Record> = parents.split_whitespace().filter_map(at).collect();
        let before = parents.into_iter().reduce(largest).or(last);
        if let Some(before) = before {
            let unexplained = unexplained(&then, &before, &git(&["log", "-1", "--format=%b", commit])?);
            ensure!(
                unexplained.is_empty(),
                "commit {commit} records that these grew or are gone, and no line of its body begins with `{REASON}` and says why: {}",
                unexplained.join(", ")
            );
        }
        last = Some(then);
    }
    Ok(notes)
}

/// The larger count of each row that both have, and all other rows of the first.
fn largest(one: Record, other: Record) -> Record {
    if one.tools != other.tools {
        return one;
    }
    let in_other = |name: &str| other.counts.iter().find(|count| count.name == name).map(|count| count.instructions);
    let counts = one.counts.into_iter().map(|mut count| {
        count.instructions = count.instructions.max(in_other(&count.name).unwrap_or(0));
        count
    });
    Record { tools: one.tools, counts: counts.collect() }
}

/// The counts that grew from one record to the next without a reason, or are in it no more. If the tools differ, so may all counts.
fn unexplained(now: &Record, before: &Record, body: &str) -> Vec<String> {
    let reason = body.lines().filter_map(|line| line.strip_prefix(REASON)).any(|reason| !reason.trim().is_empty());
    if reason || now.tools != before.tools {
        return Vec::new();
    }
    let grew = now.growth(before).filter(|(_, growth)| growth.is_some_and(|percent| percent > UNEXPLAINED));
    let gone = before.counts.iter().filter(|count| now.counts.iter().all(|other| other.name != count.name));
    grew.map(|(count, _)| count.name.clone()).chain(gone.map(|count| count.name.clone())).collect()
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
    fn each_commit_that_changed_the_record_says_why() {
        for (commits, explained) in [
            (&[(1000, "First.")][..], true),
            (&[(1000, "First."), (1010, "Slower.")], false),
            (&[(1000, "First."), (1010, "Counts: slower.")], true),
            (&[(1000, "First."), (1010, "Slower."), (1010, "Other.")], false),
            (&[(1000, "First."), (1010, "Counts: slower."), (1010, "Other.")], true),
            (&[(1000, "First."), (990, "Faster.")], true),
            (&[(1000, "First."), (1010, "Slower."), (1009, "Recorded again.")], false),
            (&[(1000, "First."), (1010, "Counts: slower."), (1009, "Recorded again.")], true),
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
                    assert!(!seen && notes.len() == 1 && notes[0].contains("--unshallow"), "{depth}: {notes:?}");
                }
                Err(error) => assert!(seen && error.to_string().contains("no line"), "{depth}: {error:#}"),
            }
        }
        let nowhere = check(&grown, folder.path()).unwrap();
        assert!(nowhere.len() == 1 && nowhere[0].contains("NOT CHECKED"), "{nowhere:?}");
    }

    #[test]
    fn a_merge_of_explained_records_needs_no_reason() {
        let two = |a, b| record("1", &[("a", a), ("same", 5), ("b", b)]);
        for (merged, explained) in [(two(1010, 1010), true), (two(1010, 1030), false)] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let commit = |record: &Record, body| {
                std::fs::write(folder.join("record.txt"), record.to_string()).unwrap();
                git(folder, &["add", "."]);
                git(folder, &["commit", "--quiet", "-m", "subject", "-m", body]);
            };
            git(folder, &["init", "--quiet", "--initial-branch", "main"]);
            commit(&two(1000, 1000), "First.");
            git(folder, &["checkout", "--quiet", "-b", "side"]);
            commit(&two(1010, 1000), "Counts: slower.");
            git(folder, &["checkout", "--quiet", "main"]);
            commit(&two(1000, 1010), "Counts: slower, too.");
            git(folder, &["merge", "--quiet", "--no-commit", "--strategy", "ours", "side"]);
            commit(&merged, "Merge.");
            assert_eq!(check(&merged, folder).is_ok(), explained, "{merged}");
        }
    }

    #[test]
    fn a_record_that_is_added_again_is_compared_with_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        repository(folder, &[(1000, "First.")]);
        git(folder, &["rm", "--quiet", "record.txt"]);
        git(folder, &["commit", "--quiet", "-m", "subject"]);
        std::fs::write(folder.join("record.txt"), record("1", &[("a", 1010)]).to_string()).unwrap();
        git(folder, &["add", "."]);
        git(folder, &["commit", "--quiet", "-m", "subject"]);
        assert!(check(&record("1", &[("a", 1010)]), folder).is_err());
    }

    #[test]
    fn what_grew_needs_a_reason() {
        let before = record("1", &[("a", 1000), ("b", 1000)]);
        let grew = record("1", &[("a", 1004), ("b", 1006), ("new", 7)]);
        assert_eq!(unexplained(&grew, &before, "It is slower.\nCounts:  \n"), ["b"]);
        assert!(unexplained(&grew, &before, "Body.\n\nCounts: b hashes twice, to be safe.\n").is_empty());
        assert_eq!(unexplained(&before, &grew, ""), ["new"]);
        assert!(unexplained(&before, &grew, "Counts: `new` was of no use.").is_empty());
        assert!(unexplained(&record("2", &[("a", 9999)]), &before, "").is_empty());
    }
}
