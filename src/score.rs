//! How probable given continuations are.
//!
//! Continuations of one prompt share it, and often their first tokens. Here they form a prefix tree:
//! every distinct prefix is evaluated once, all of them after the one prompt, many in a pass. The
//! figures are bit for bit those of evaluating each continuation alone.

use alloc::vec::Vec;

use crate::error::{Error, Result};
use crate::fp_env::FpEnv;
use crate::heap;
use crate::kernels::Kernels;
use crate::memory::{try_filled, try_vec};
use crate::session::Session;

pub use crate::log_softmax::{log_sum_exp, log_sum_exp_by};

/// Natural logarithms of the probabilities of some tokens, given the logits `[vocab_size]` they were
/// or might have been chosen from. Panics if a token is not in the vocabulary.
pub fn log_probabilities_of(logits: &[f32], tokens: &[u32]) -> Vec<f64> {
    log_probabilities_by(Kernels::best(), logits, tokens)
}

/// As [`log_probabilities_of`], computed on the instruction set of these kernels; the bits are the same.
pub fn log_probabilities_by(kernels: &Kernels, logits: &[f32], tokens: &[u32]) -> Vec<f64> {
    let _env = FpEnv::set_default();
    let log_sum = log_sum_exp_by(kernels, logits);
    tokens.iter().map(|&token| f64::from(logits[token as usize]) - log_sum).collect()
}

/// The most probable tokens, at most `n`, each with the natural logarithm of its probability; the
/// most probable first, the lower id first among equals.
pub fn top_log_probabilities(logits: &[f32], count: usize) -> Vec<(u32, f64)> {
    top_log_probabilities_by(Kernels::best(), logits, count)
}

/// As [`top_log_probabilities`], computed on the instruction set of these kernels; the bits are the same.
pub fn top_log_probabilities_by(
    kernels: &Kernels,
    logits: &[f32],
    count: usize,
) -> Vec<(u32, f64)> {
    let tokens = most_probable(logits, count, Vec::new());
    let log_probabilities = log_probabilities_by(kernels, logits, &tokens);
    tokens.into_iter().zip(log_probabilities).collect()
}

/// The most probable tokens, in that order, in a vector that is empty and best has room for them.
pub(crate) fn most_probable(logits: &[f32], count: usize, mut tokens: Vec<u32>) -> Vec<u32> {
    let before = |&a: &u32, &b: &u32| {
        logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)).is_lt()
    };
    let count = count.min(logits.len());
    tokens.extend(0..count as u32);
    heap::keep_first(&mut tokens, count as u32..logits.len() as u32, before);
    heap::sort(&mut tokens, before);
    tokens
}

/// Continuations to compare, as a prefix tree over their tokens.
///
/// Independent of any model and prompt: make it once, score it after many prompts.
#[derive(Clone, Debug)]
pub struct Continuations {
    /// Every distinct prefix, shorter ones before those they begin, each branch to its end.
    nodes: Vec<Node>,
    /// Children of the nodes, those of the root (the prompt) first: node `i` has
    /// `children[first_child[i + 1]..first_child[i + 2]]`.
    children: Vec<usize>,
    first_child: Vec<usize>,
    /// The node at which each continuation ends.
    ends: Vec<usize>,
    /// Nodes that have children, in order: those that are evaluated.
    inner: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    token: u32,
    parent: Option<usize>,
    /// Tokens before this one.
    depth: usize,
}

impl Continuations {
    /// The tokens of continuation `i`.
    ///
    /// # Panics
    /// If there is none.
    pub fn sequence(&self, i: usize) -> Vec<u32> {
        let up = |&n: &usize| self.nodes[n].parent;
        let path = core::iter::successors(Some(self.ends[i]), up);
        let mut tokens: Vec<u32> = path.map(|n| self.nodes[n].token).collect();
        tokens.reverse();
        tokens
    }

    /// A tree of these sequences of token ids; equal ones and beginnings of others are welcome.
    ///
    /// # Errors
    /// [`Error::NoTokens`] if there is none, or one is empty; [`Error::OutOfMemory`].
    pub fn new<T: AsRef<[u32]>>(continuations: &[T]) -> Result<Self> {
        let tokens = |i: usize| continuations[i].as_ref();
        if continuations.is_empty() || continuations.iter().any(|c| c.as_ref().is_empty()) {
            return Err(Error::NoTokens);
        }
        let mut order = try_vec(continuations.len())?;
        order.extend(0..continuations.len());
        heap::sort(&mut order, |&a, &b| tokens(a) < tokens(b));
        let lengths = || continuations.iter().map(|c| c.as_ref().len());
        let mut nodes = try_vec::<Node>(lengths().sum())?;
        let mut path = try_vec::<usize>(lengths().max().unwrap_or(0))?;
        let mut ends = try_filled(0, continuations.len())?;
        for i in order {
            let shared = path.iter().zip(tokens(i)).take_while(|&(&n, &t)| nodes[n].token == t);
            path.truncate(shared.count());
            for &token in &tokens(i)[path.len()..] {
                let parent = path.last().copied();
                nodes.push(Node { token, parent, depth: path.len() });
                path.push(nodes.len() - 1);
            }
            ends[i] = path[path.len() - 1];
        }
        let (children, first_child) = children_of(&nodes)?;
        let mut inner = try_vec(nodes.len())?;
        inner.extend((0..nodes.len()).filter(|&n| first_child[n + 1] < first_child[n + 2]));
        Ok(Self { nodes, children, first_child, ends, inner })
    }

    /// How many continuations there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Never: a tree has at least one.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How many tokens are evaluated after the prompt.
    pub fn evaluated_tokens(&self) -> usize {
        self.inner.len()
    }

    /// Tokens of a continuation.
    pub fn tokens_of(&self, continuation: usize) -> usize {
        self.nodes[self.ends[continuation]].depth + 1
    }

    fn children(&self, node: Option<usize>) -> &[usize] {
        let node = node.map_or(0, |node| node + 1);
        &self.children[self.first_child[node]..self.first_child[node + 1]]
    }

    /// Positions that the tree needs after the prompt.
    fn depth(&self) -> usize {
        self.inner.iter().map(|&n| self.nodes[n].depth + 1).max().unwrap_or(0)
    }

    /// Fills in the log-probabilities of a node's children.
    fn visit(&self, node: Option<usize>, logits: &[f32], log_sum: f64, to: &mut [f64]) {
        for &child in self.children(node) {
            to[child] = f64::from(logits[self.nodes[child].token as usize]) - log_sum;
        }
    }
}

/// Nodes grouped by their parents, in order.
fn children_of(nodes: &[Node]) -> Result<(Vec<usize>, Vec<usize>)> {
    let group = |node: &Node| node.parent.map_or(0, |parent| parent + 1);
    let mut first = try_filled(0, nodes.len() + 2)?;
    for node in nodes {
        first[group(node) + 1] += 1;
    }
    for i in 1..first.len() {
        first[i] += first[i - 1];
    }
    let (mut children, mut next) = (try_filled(0, nodes.len())?, try_vec(first.len())?);
    next.extend_from_slice(&first);
    for (i, node) in nodes.iter().enumerate() {
        let place = &mut next[group(node)];
        children[*place] = i;
        *place += 1;
    }
    Ok((children, first))
}

/// Log-probabilities of [`Continuations`] after a prompt.
#[derive(Clone, Debug)]
pub struct Scores<'a> {
    continuations: &'a Continuations,
    /// Of each node's token after those before it.
    log_probabilities: Vec<f64>,
    /// Sums from the prompt to each node.
    sums: Vec<f64>,
}

impl<'a> Scores<'a> {
    fn new(continuations: &'a Continuations, log_probabilities: Vec<f64>) -> Result<Self> {
        let mut sums = try_vec(log_probabilities.len())?;
        for (node, value) in core::iter::zip(&continuations.nodes, &log_probabilities) {
            sums.push(node.parent.map_or(0.0, |parent| sums[parent]) + value);
        }
        Ok(Self { continuations, log_probabilities, sums })
    }

    /// Natural logarithm of a continuation's probability: the sum over its tokens, first to last.
    pub fn log_probability(&self, continuation: usize) -> f64 {
        self.sums[self.continuations.ends[continuation]]
    }

    /// The same per token: what normalizes for length.
    pub fn mean_log_probability(&self, continuation: usize) -> f64 {
        let tokens = self.continuations.tokens_of(continuation);
        self.log_probability(continuation) / tokens as f64
    }

    /// Natural logarithm of the probability of each token of a continuation after those before it.
    pub fn tokens(&self, continuation: usize) -> Vec<f64> {
        let mut tokens = vec![0.0; self.continuations.tokens_of(continuation)];
        self.copy_tokens(continuation, &mut tokens);
        tokens
    }

    /// As [`tokens`](Self::tokens), to a slice with a place for each. Panics if it has another length.
    pub fn copy_tokens(&self, continuation: usize, tokens: &mut [f64]) {
        assert_eq!(tokens.len(), self.continuations.tokens_of(continuation));
        let mut node = Some(self.continuations.ends[continuation]);
        for place in tokens.iter_mut().rev() {
            let n = node.expect("a node for each token");
            *place = self.log_probabilities[n];
            node = self.continuations.nodes[n].parent;
        }
    }
}

impl Session {
    /// Appends `prompt`, and computes the probabilities of continuations after it.
    ///
    /// Afterwards the session holds the prompt, not the continuations, and no logits. An empty prompt
    /// scores them after what the session holds; in an empty session it stands for the end-of-text
    /// token, after which a new text begins.
    ///
    /// Prompt and tree are evaluated together, as many tokens at once as the session has chunk; of those
    /// of the tree not more than it has logits for ([`LogitsFor::All`](crate::LogitsFor::All) for speed).
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate); [`Error::ContextFull`] if prompt and longest continuation
    /// do not fit. The session is then as before, but for the logits.
    pub fn score<'a>(
        &mut self,
        prompt: &[u32],
        continuations: &'a Continuations,
    ) -> Result<Scores<'a>> {
        let _env = FpEnv::set_default();
        let end_of_text = self.model().config().eos_token_id;
        let first = match (prompt, self.position()) {
            ([], 0) => end_of_text.as_slice(),
            // The last token once more: its logits may be gone.
            ([], position) => {
                let last = [self.tokens()[position - 1]];
                self.rewind(position - 1)?;
                return self.score(&last, continuations).inspect_err(|_| self.record(&last));
            }
            _ => prompt,
        };
        if first.is_empty() {
            return Err(Error::NoTokens);
        }
        let (position, prompt_tokens) = (self.position(), first.len());
        // Those at the ends of the tree are looked up, not evaluated, but must exist as well.
        let mut tokens = try_vec(prompt_tokens + continuations.nodes.len())?;
        tokens.extend_from_slice(first);
        tokens.extend(continuations.nodes.iter().map(|node| node.token));
        self.check_tokens(&tokens, prompt_tokens + continuations.depth())?;
        tokens.truncate(prompt_tokens);
        let inner = continuations.inner.iter().map(|&n| continuations.nodes[n]);
        tokens.extend(inner.clone().map(|node| node.token));
        let start = position + prompt_tokens;
        let mut positions = try_vec(tokens.len())?;
        positions.extend(position..start);
        positions.extend(inner.map(|node| start + node.depth));
        let mut log_probabilities = try_filled(f64::NAN, continuations.nodes.len())?;
        self.evaluate_tree(&tokens, &positions, prompt_tokens - 1, &mut |row, logits, log_sum| {
            let node = row.checked_sub(prompt_tokens).map(|i| continuations.inner[i]);
            continuations.visit(node, logits, log_sum, &mut log_probabilities);
        })?;
        self.record(&tokens[..prompt_tokens]);
        Scores::new(continuations, log_probabilities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;

    #[test]
    fn the_tree_shares_prefixes_and_knows_every_end() {
        let continuations = [&[1, 2, 3][..], &[7], &[1, 2], &[1, 5], &[1, 2, 3], &[1, 2, 4, 9]];
        let tree = Continuations::new(&continuations).unwrap();
        // 1, 1 2, 1 2 3, 1 2 4, 1 2 4 9, 1 5, 7; evaluated are 1, 1 2 and 1 2 4.
        assert_eq!(tree.nodes.len(), 7);
        assert_eq!(tree.evaluated_tokens(), 3);
        assert_eq!(tree.depth(), 3);
        assert_eq!((tree.len(), tree.is_empty()), (6, false));
        for (i, want) in continuations.iter().enumerate() {
            assert_eq!((tree.tokens_of(i), &tree.sequence(i)[..]), (want.len(), *want));
            let log_probabilities = (0..7).map(|n| f64::from(tree.nodes[n].token)).collect();
            let scores = Scores::new(&tree, log_probabilities).unwrap();
            let want: Vec<f64> = want.iter().map(|&t: &u32| f64::from(t)).collect();
            assert_eq!(scores.tokens(i), want);
            assert_eq!(scores.log_probability(i), want.iter().sum::<f64>());
        }
        // Pre-order: a node's parent is the last one before it of the depth above.
        for (i, node) in tree.nodes.iter().enumerate() {
            let above = |n: &usize| tree.nodes[*n].depth + 1 == node.depth;
            assert_eq!(node.parent, (0..i).rev().find(above).filter(|_| node.depth > 0));
        }
    }

    #[test]
    fn the_most_probable_tokens_come_first() {
        let logits = [0.0, 2.0, 1.0, 2.0, -5.0];
        let top = top_log_probabilities(&logits, 3);
        assert_eq!(top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 3, 2]);
        let all = top_log_probabilities(&logits, 9);
        assert!((all.iter().map(|(_, p)| p.exp()).sum::<f64>() - 1.0).abs() < 1e-6);
        assert_eq!(log_probabilities_of(&logits, &[2, 1]), [top[2].1, top[0].1]);
        for kernels in Isa::available().filter_map(Kernels::new) {
            assert_eq!(top_log_probabilities_by(kernels, &logits, 3), top, "{}", kernels.isa());
        }
        assert!(top_log_probabilities(&logits, 0).is_empty());
    }

    #[test]
    fn nothing_to_score_is_an_error() {
        assert!(matches!(Continuations::new::<[u32; 1]>(&[]), Err(Error::NoTokens)));
        assert!(matches!(Continuations::new(&[vec![1], vec![]]), Err(Error::NoTokens)));
    }
}
