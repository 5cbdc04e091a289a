//! The Markdown pages of the repository: links, anchors, and runnable commands.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The tested parts of one page.
#[derive(Debug, Default)]
pub struct Page {
    /// Ids of the headings, as mdBook and GitHub make them.
    pub anchors: Vec<String>,
    /// Destinations of links and images, as written.
    pub links: Vec<String>,
    /// Code blocks that begin with ```` ```sh run ````.
    pub commands: Vec<String>,
    /// Number of headings by text.
    ids: BTreeMap<String, usize>,
}

impl Page {
    /// Reads Markdown in which mdBook's includes are already expanded.
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut block: Option<String> = None;
        let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_FOOTNOTES;
        for event in Parser::new_ext(text, options) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.add_anchor(&heading.take().unwrap_or_default()),
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) if &*info == "sh run" => {
                    block = Some(String::new());
                }
                Event::End(TagEnd::CodeBlock) => page.commands.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Text(text) | Event::Code(text) => {
                    for collected in [&mut heading, &mut block].into_iter().flatten() {
                        collected.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
    }

    /// Adds a heading's id: lower case, hyphens for white space, no punctuation, numbered from the second occurrence
    /// on.
    fn add_anchor(&mut self, heading: &str) {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ' '));
        let id: String = kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect();
        let count = self.ids.entry(id.clone()).or_default();
        self.anchors.push(if *count == 0 { id } else { format!("{id}-{count}") });
        *count += 1;
    }
}

/// The repository's root.
pub fn repository() -> PathBuf {
    normal(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

/// Normalises a path without `.` and `..`, without file system access.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(result.pop()),
            Component::CurDir => {}
            other => result.push(other),
        }
    }
    result
}

/// All Markdown files that git tracks or would track, by path from the root.
pub fn pages() -> Result<BTreeMap<PathBuf, Page>> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"];
    let listed = Command::new("git").args(arguments).current_dir(repository()).output()?;
    ensure!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout)?.lines().map(PathBuf::from).collect::<Vec<_>>();
    let existing = paths.into_iter().filter(|path| repository().join(path).is_file());
    existing.map(|path| Ok((path.clone(), Page::parse(&expanded(&path)?)))).collect()
}

/// Returns a page's text with each `{{#include file}}` and `{{#include file:anchor}}` on its own line replaced.
fn expanded(path: &Path) -> Result<String> {
    let text = read(path)?;
    let mut result = String::new();
    for line in text.lines() {
        let included = line.strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}"));
        match included.map(|source| source.split_once(':').unwrap_or((source, ""))) {
            None => result.push_str(line),
            Some((file, anchor)) => result.push_str(&part(&resolved(path, file), anchor)?),
        }
        result.push('\n');
    }
    Ok(result)
}

/// Returns the lines of a file between `ANCHOR: name` and `ANCHOR_END: name`; all lines without a name.
fn part(path: &Path, anchor: &str) -> Result<String> {
    let text = read(path)?;
    if anchor.is_empty() {
        return Ok(text);
    }
    let (_, rest) = text
        .split_once(&format!("ANCHOR: {anchor} -->\n"))
        .with_context(|| format!("{} has no anchor {anchor}", path.display()))?;
    let (inner, _) = rest
        .split_once(&format!("<!-- ANCHOR_END: {anchor} -->"))
        .with_context(|| format!("{}: anchor {anchor} does not end", path.display()))?;
    Ok(inner.to_owned())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.display().to_string())
}

/// Returns the file that a page's relative link refers to, by path from the root.
pub fn resolved(page: &Path, link: &str) -> PathBuf {
    normal(&page.parent().unwrap_or(Path::new("")).join(link))
}
