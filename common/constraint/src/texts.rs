//! Byte strings in ascending order, used as a trie.
//!
//! A node of the trie is the range of the strings that share their first `depth` bytes.

use std::ops::Range;

#[derive(Debug, Clone)]
pub(crate) struct Texts {
    bytes: Vec<u8>,
    /// End of each string in `bytes`; a string starts at the end of the previous one.
    ends: Vec<usize>,
}

impl Texts {
    /// `sorted`: in ascending order.
    pub(crate) fn new<'a>(sorted: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for text in sorted {
            bytes.extend_from_slice(text);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// Returns the strings of a node that are no longer than its depth; they sort first.
    pub(crate) fn ending(&self, node: Range<usize>, depth: usize) -> Range<usize> {
        let end = self.partition(node.clone(), |text| text.len() <= depth);
        node.start..end
    }

    /// Returns the child of a node for a byte; empty if the node has no such child.
    pub(crate) fn child(&self, node: Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let start = self.partition(node.clone(), |text| text.get(depth).is_none_or(|other| *other < byte));
        let end = self.partition(start..node.end, |text| text.get(depth).is_none_or(|other| *other <= byte));
        start..end
    }

    /// Returns the first index of the node for which `before` is false.
    fn partition(&self, node: Range<usize>, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (node.start, node.end);
        while low < high {
            let middle = low.midpoint(high);
            if before(self.get(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_ranges() {
        let texts = Texts::new([b"a".as_slice(), b"ab", b"ab", b"abc", b"b"]);
        assert_eq!(texts.len(), 5);
        let below_a = texts.child(0..5, 0, b'a');
        assert_eq!(below_a, 0..4);
        assert_eq!(texts.ending(below_a.clone(), 1), 0..1);
        let below_ab = texts.child(below_a.clone(), 1, b'b');
        assert_eq!((below_ab.clone(), texts.ending(below_ab, 2)), (1..4, 1..3));
        assert!(texts.child(below_a, 1, b'z').is_empty());
        assert_eq!(texts.get(3), b"abc");
    }
}
