//! Whether the commit that changed the record says why.

use anyhow::{Result, ensure};

use crate::record::{Record, output};

/// What the line of a commit's body begins with that says why a count grew.
pub(crate) const REASON: &str = "Counts:";

/// Growth of a recorded count that nobody has to explain, in percent. Smaller than what a commit may cost without a new record: many small
/// steps are a large one.
const UNEXPLAINED: f64 = 0.5;

/// Looks at the last commit that changed the record: if a count grew in it, its body says why. Outside of a repository, or where a shallow
/// one ends, there is nothing to look at.
pub(crate) fn check(on_record: &Record) -> Result<()> {
    let Ok(commit) = output("git", &["log", "-1", "--format=%H", "--", "record.txt"]) else {
        println!("no git repository here: who changed the counts on record is not looked at");
        return Ok(());
    };
    let at = |revision: &str| {
        let text = output("git", &["show", &format!("{revision}:./record.txt")]).ok()?;
        Record::parse(&text).ok()
    };
    if at("HEAD").as_ref() != Some(on_record) {
        println!(
            "record.txt is not committed yet: if a count grew, the body of the commit has to say why (`{REASON} ...`)"
        );
    }
    if commit.is_empty() {
        return Ok(());
    }
    let (Some(then), Some(before)) = (at(&commit), at(&format!("{commit}^"))) else { return Ok(()) };
    let body = output("git", &["log", "-1", "--format=%b", &commit])?;
    let unexplained = unexplained(&then, &before, &body);
    ensure!(
        unexplained.is_empty(),
        "commit {commit} records that these grew, and no line of its body begins with `{REASON}` and says why: {}",
        unexplained.join(", ")
    );
    Ok(())
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
