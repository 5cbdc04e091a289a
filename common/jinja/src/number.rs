//! Numbers of templates, and their exact order.

use std::cmp::Ordering;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    /// Returns the number as a float. Integers of more than 53 bits are rounded.
    pub(crate) fn as_float(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Float(number) => number,
        }
    }

    /// Returns the exact order of two numbers, `None` with NaN.
    pub(crate) fn order(self, other: Self) -> Option<Ordering> {
        if let (Self::Integer(left), Self::Integer(right)) = (self, other) {
            return Some(left.cmp(&right));
        }
        // An integer that a float cannot represent lies next to it.
        let exact = |number: Self, ordering: Ordering| match number {
            Self::Integer(integer) if number.as_float().abs() < 1e38 => {
                ordering.then(integer.cmp(&(number.as_float() as i128)))
            }
            _ => ordering,
        };
        let ordering = exact(self, self.as_float().partial_cmp(&other.as_float())?);
        Some(exact(other, ordering.reverse()).reverse())
    }
}
