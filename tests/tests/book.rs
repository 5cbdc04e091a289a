//! The book in docs/: links and anchors are valid, the summary is complete, runnable commands run.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use podium_tests::binary;
use podium_tests::book::{Page, pages, repository, resolved};

const SUMMARY: &str = "docs/SUMMARY.md";

#[test]
fn links_and_anchors_are_valid() -> Result<()> {
    let pages = pages()?;
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { resolved(path, file) };
            let problem = if !repository().join(&target).exists() {
                "no such file"
            } else if path.starts_with("docs") && !target.starts_with("docs") {
                "leads out of the book"
            } else if !anchor.is_empty()
                && !pages.get(&target).is_some_and(|page| page.anchors.iter().any(|one| one == anchor))
            {
                "no such heading"
            } else {
                continue;
            };
            broken.push(format!("{}: {link}: {problem}", path.display()));
        }
    }
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    let links: usize = pages.values().map(|page| page.links.len()).sum();
    ensure!(links > 50, "only {links} links were found");
    Ok(())
}

#[test]
fn the_summary_lists_every_page_once() -> Result<()> {
    let pages = pages()?;
    let summary = &pages[Path::new(SUMMARY)];
    let listed: Vec<PathBuf> = summary.links.iter().map(|link| resolved(Path::new(SUMMARY), link)).collect();
    let distinct: BTreeSet<&PathBuf> = listed.iter().collect();
    ensure!(distinct.len() == listed.len(), "{SUMMARY} lists a page twice: {listed:?}");
    let is_page = |path: &&PathBuf| path.starts_with("docs") && path.as_path() != Path::new(SUMMARY);
    let existing: BTreeSet<&PathBuf> = pages.keys().filter(is_page).collect();
    let difference: Vec<_> = existing.symmetric_difference(&distinct).collect();
    ensure!(difference.is_empty(), "{SUMMARY} and the pages of docs/ differ in {difference:?}");
    Ok(())
}

/// Creates a copy of the repository after `make build` whose new files are separate.
fn checkout() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(repository())? {
        let name = entry?.file_name();
        if !["target", "runs", "data"].iter().any(|own| name == *own) {
            symlink(repository().join(&name), folder.path().join(&name))?;
        }
    }
    fs::create_dir(folder.path().join("target"))?;
    let release = binary("podium");
    symlink(release.parent().expect("a binary is in a folder"), folder.path().join("target/release"))?;
    Ok(folder)
}

#[test]
fn runnable_commands_run() -> Result<()> {
    let pages = pages()?;
    let with_commands: Vec<(&PathBuf, &Page)> =
        pages.iter().filter(|(_, page)| !page.commands.is_empty()).collect();
    ensure!(!with_commands.is_empty(), "no page has a block of ```sh run");
    for (path, page) in with_commands {
        let folder = checkout()?;
        for commands in &page.commands {
            let mut shell = Command::new("bash");
            let output =
                shell.args(["-euo", "pipefail", "-c", commands]).current_dir(folder.path()).output()?;
            ensure!(
                output.status.success(),
                "{}: {}\n{commands}\n{}{}",
                path.display(),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }
    Ok(())
}

#[test]
fn pages_are_parsed_like_mdbook() {
    let page = Page::parse(
        "# A `name_of`: the *first*\n\n## Two\n\n## Two\n\n[x](a.md#b) ![y](c.png) `[no](link)`\n\n\
         ```sh run\ntrue\n```\n\n```sh\nfalse\n```\n\n[z]\n\n[z]: d.md\n",
    );
    assert_eq!(page.anchors, ["a-name_of-the-first", "two", "two-1"]);
    assert_eq!(page.links, ["a.md#b", "c.png", "d.md"]);
    assert_eq!(page.commands, ["true\n"]);
}

#[test]
fn the_page_of_commands_matches_the_programs_help() -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/reference/commands.md"))?;
    ensure!(
        page == podium_tests::commands::page()?,
        "docs/reference/commands.md is outdated: run `make commands`"
    );
    Ok(())
}

#[test]
fn the_walk_through_the_algorithm_names_existing_items() -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/design/algorithm.md"))?;
    let mut missing = Vec::new();
    let mut found = 0;
    for row in page.lines().filter(|line| line.starts_with("| `") && line.contains(".rs`")) {
        let mut quoted = row.split('`').skip(1).step_by(2);
        let path = quoted.next().unwrap_or_default();
        let code = fs::read_to_string(repository().join(path)).unwrap_or_default();
        let words: BTreeSet<&str> = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        for name in quoted {
            found += 1;
            if !name.split("::").all(|part| words.contains(part)) {
                missing.push(format!("{path}: {name}"));
            }
        }
    }
    ensure!(missing.is_empty() && found > 30, "{found} names, of which these do not exist: {missing:?}");
    Ok(())
}
