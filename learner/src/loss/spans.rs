//! Means and sums over spans of a flat list of tokens, in tensors.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

/// Adjacent spans of tokens; empty spans are skipped.
///
/// Sums use padded rows rather than scattered additions, whose order is not fixed on a GPU.
#[derive(Debug)]
pub(super) struct Spans {
    /// Token of each padded cell, \[spans · width\]; padding refers to token 0.
    cells: Tensor,
    /// 1 at a token, 0 at padding, \[spans, width\], float64.
    is_token: Tensor,
    /// Tokens of each span, \[spans\], float64.
    lengths: Tensor,
    /// The span of each token, \[tokens\].
    of_token: Tensor,
}

impl Spans {
    /// Creates the spans, which cover the tokens from 0 on without gaps. Returns `None` if there is no token.
    pub(super) fn new(spans: &[Range<usize>], device: Device) -> Option<Self> {
        let spans: Vec<&Range<usize>> = spans.iter().filter(|span| !span.is_empty()).collect();
        let width = spans.iter().map(|span| span.end - span.start).max()?;
        let (mut cells, mut is_token, mut of_token) = (Vec::new(), Vec::new(), Vec::new());
        for (number, span) in spans.iter().enumerate() {
            let end = (number + 1) * width;
            cells.extend((span.start..span.end).map(|token| token as i64));
            cells.resize(end, 0);
            is_token.resize(is_token.len() + span.len(), 1.0_f64);
            is_token.resize(end, 0.0);
            of_token.resize(of_token.len() + span.len(), number as i64);
        }
        let lengths: Vec<f64> = spans.iter().map(|span| span.len() as f64).collect();
        let shape = [spans.len() as i64, width as i64];
        Some(Self {
            cells: Tensor::from_slice(&cells).to_device(device),
            is_token: Tensor::from_slice(&is_token).to_device(device).view(shape),
            lengths: Tensor::from_slice(&lengths).to_device(device),
            of_token: Tensor::from_slice(&of_token).to_device(device),
        })
    }

    /// \[tokens\] to \[spans\].
    pub(super) fn sums(&self, x: &Tensor) -> Tensor {
        let cells = rows(x, &self.cells).view_as(&self.is_token) * &self.is_token;
        cells.sum_dim_intlist(1, false, Kind::Double)
    }

    /// \[tokens\] to \[spans\].
    pub(super) fn means(&self, x: &Tensor) -> Tensor {
        self.sums(x) / &self.lengths
    }

    /// Assigns every token its span's number: \[spans\] to \[tokens\].
    pub(super) fn spread(&self, x: &Tensor) -> Tensor {
        rows(x, &self.of_token)
    }
}

/// Gathers numbers of a list by index. Its backward adds in a fixed order.
fn rows(x: &Tensor, index: &Tensor) -> Tensor {
    Tensor::embedding(&x.unsqueeze(-1), index, -1, false, false).squeeze_dim(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn spans_sum_average_and_spread() {
        let spans = Spans::new(&[0..2, 2..2, 2..5], Device::Cpu).unwrap();
        let x = Tensor::from_slice(&[1.0, 3.0, 1.0, 2.0, 6.0]).set_requires_grad(true);
        assert_eq!(numbers(&spans.sums(&x)), [4.0, 9.0]);
        let means = spans.means(&x);
        assert_eq!(numbers(&spans.spread(&means)), [2.0, 2.0, 3.0, 3.0, 3.0]);
        (spans.spread(&means) * Tensor::from_slice(&[1.0, 0.0, 3.0, 0.0, 0.0])).sum(Kind::Double).backward();
        assert_eq!(numbers(&x.grad()), [0.5, 0.5, 1.0, 1.0, 1.0]);
        assert!(Spans::new(&[0..0, 0..0], Device::Cpu).is_none());
    }
}
