//! The drawings, as SVG inside the page. Colours come from the page's style sheet, so that they follow
//! its dark mode; no two lines differ by their colour alone.

use std::fmt::Write;

use maud::{Markup, html};

use super::axis::{Axis, LogAxis};
use super::measured::Measured;
use crate::eval::{Comparison, Histogram};

/// Size of a drawing in its own units; small, so that text stays readable on a phone.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 290.0;
/// What axes and their labels take.
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// The places of the axes' ends.
const ACROSS: (f64, f64) = (LEFT, WIDTH - RIGHT);
const UP: (f64, f64) = (HEIGHT - BOTTOM, TOP);

/// Colours and dashes of the models, in turn.
const COLOURS: usize = 6;
const DASHES: [&str; 4] = ["none", "7 4", "2 3", "10 3 2 3"];

/// The colour of a model, as the style sheet has it.
pub(super) fn colour(index: usize) -> String {
    format!("var(--series-{})", index % COLOURS)
}

/// The dashes of a model's line.
fn dash(index: usize) -> &'static str {
    DASHES[index % DASHES.len()]
}

/// The letter of a model in drawings and tables.
pub(super) fn letter(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    let round = index / 26;
    if round == 0 { letter.to_string() } else { format!("{letter}{round}") }
}

/// Shares of the tokens by their divergence; with one model, also where its mean and its quantiles are.
pub(super) fn divergence(models: &[(usize, &Measured, &Histogram, &Comparison)]) -> Markup {
    let shares = |model: &&Histogram| model.shares.clone();
    let all: Vec<Vec<f64>> = models.iter().map(|(_, _, histogram, _)| shares(histogram)).collect();
    let bins = all[0].len();
    let per_decade = bins / (Histogram::LAST_DECADE - Histogram::FIRST_DECADE) as usize;
    let decade = |bin: usize| Histogram::FIRST_DECADE + (bin / per_decade) as i32;
    let seen = |&bin: &usize| all.iter().any(|shares| shares[bin] >= 0.001);
    let first = (0..bins).find(seen).unwrap_or(0);
    let last = (0..bins).rev().find(seen).unwrap_or(bins - 1);
    let x = LogAxis { decades: (decade(first), decade(last) + 1), ends: ACROSS };
    let highest = all.iter().flatten().copied().fold(0.0, f64::max);
    let y = Axis::holding(0.0, 100.0 * highest, UP);

    let outline = |shares: &[f64]| {
        let (low, high) = (decade(first), decade(last) + 1);
        let start = ((low - Histogram::FIRST_DECADE) as usize) * per_decade;
        let end = ((high - Histogram::FIRST_DECADE) as usize) * per_decade;
        let width = (ACROSS.1 - ACROSS.0) / (end - start) as f64;
        let mut path = format!("M{:.1} {:.1}", ACROSS.0, UP.0);
        for (i, share) in shares[start..end].iter().enumerate() {
            let (from, level) = (ACROSS.0 + i as f64 * width, y.place(100.0 * share));
            let _ = write!(path, "V{level:.1}H{:.1}", from + width);
        }
        let _ = write!(path, "V{:.1}", UP.0);
        path
    };
    let single = match models {
        [(_, _, _, comparison)] => Some(*comparison),
        _ => None,
    };
    let title = "Share of tokens by divergence from the reference";
    drawing(
        title,
        &describe_divergence(models),
        html! {
            (frame(&x.marks(), "KL divergence of a token, nats", &y.marks(), "% of tokens"))
            @for ((index, ..), shares) in models.iter().zip(&all) {
                path d=(outline(shares)) stroke=(colour(*index)) stroke-width="2"
                    stroke-dasharray=(dash(*index)) fill=(colour(*index))
                    fill-opacity=(if single.is_some() { "0.25" } else { "0" }) {}
            }
            @if let Some(comparison) = single {
                @for (i, (name, value)) in quantiles(comparison).into_iter().enumerate() {
                    @let at = format!("{:.1}", x.place(value));
                    @let label_y = format!("{:.1}", TOP + 14.0 + 17.0 * i as f64);
                    @let left = x.place(value) > WIDTH / 2.0;
                    @let label_x = format!("{:.1}", x.place(value) + if left { -5.0 } else { 5.0 });
                    line x1=(at) x2=(at) y1=(format!("{:.1}", TOP + 3.0 + 17.0 * i as f64))
                        y2=(UP.0) class="frame" stroke-dasharray="4 3" {}
                    text class="mark" x=(label_x) y=(label_y)
                        text-anchor=(if left { "end" } else { "start" }) { (name) }
                }
            }
        },
    )
}

fn quantiles(comparison: &Comparison) -> [(&'static str, f64); 3] {
    [("99 %", comparison.kl_p99), ("95 %", comparison.kl_p95), ("mean", comparison.kl_mean)]
}

fn describe_divergence(models: &[(usize, &Measured, &Histogram, &Comparison)]) -> String {
    let mut text = String::new();
    for (_, model, _, comparison) in models {
        let _ = write!(
            text,
            "{}: mean {:.5}, 95 % of tokens below {:.5}, 99 % below {:.5} nats. ",
            model.name, comparison.kl_mean, comparison.kl_p95, comparison.kl_p99
        );
    }
    text
}

/// Mean divergence over bits per weight, with its confidence interval: left and low is better.
pub(super) fn size_and_quality(models: &[(usize, &Measured, &Comparison)]) -> Markup {
    let bits = |model: &Measured| model.summary.bits_per_weight;
    let low = models.iter().map(|(_, model, _)| bits(model)).fold(f64::INFINITY, f64::min);
    let high = models.iter().map(|(_, model, _)| bits(model)).fold(0.0, f64::max);
    let x = Axis::holding(low - 0.2, high + 0.2, ACROSS);
    let ends =
        |comparison: &Comparison| comparison.kl_mean_interval.unwrap_or([comparison.kl_mean; 2]);
    let y = LogAxis::holding(models.iter().flat_map(|(_, _, comparison)| ends(comparison)), UP);
    let text: Vec<String> = models
        .iter()
        .map(|(_, m, c)| format!("{}: {:.3} bits, {:.5} nats", m.name, bits(m), c.kl_mean))
        .collect();
    drawing(
        "Mean divergence over bits per weight",
        &text.join("; "),
        html! {
            (frame(&x.marks(), "bits per weight", &y.marks(), "mean KL, nats"))
            @for (index, model, comparison) in models {
                @let [cx, cy] = [x.place(bits(model)), y.place(comparison.kl_mean)];
                @let [low, high] = ends(comparison).map(|end| format!("{:.1}", y.place(end)));
                @let at = format!("{cx:.1}");
                line x1=(at) x2=(at) y1=(low) y2=(high) stroke=(colour(*index)) stroke-width="2" {}
                circle cx=(at) cy=(format!("{cy:.1}")) r="4.5" fill=(colour(*index)) {}
                text class="mark" x=(format!("{:.1}", cx + 8.0)) y=(format!("{:.1}", cy - 6.0)) {
                    (letter(*index))
                }
            }
        },
    )
}

/// Which line and letter is which model.
pub(super) fn key(models: &[(usize, &Measured)]) -> Markup {
    html! {
        ul.key {
            @for (index, model) in models {
                li {
                    svg viewBox="0 0 28 12" aria-hidden="true" {
                        line x1="0" x2="28" y1="6" y2="6" stroke=(colour(*index))
                            stroke-width="2.5" stroke-dasharray=(dash(*index)) {}
                    }
                    (letter(*index)) " " (model.name)
                }
            }
        }
    }
}

/// A bar that fills `share` of its cell.
pub(super) fn bar(share: f64, series: usize) -> Markup {
    html! {
        svg.bar viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            rect width=(format!("{:.1}", 100.0 * share.clamp(0.0, 1.0))) height="10"
                fill=(colour(series)) {}
        }
    }
}

fn drawing(title: &str, description: &str, content: Markup) -> Markup {
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
            aria-label=(format!("{title}. {description}")) {
            title { (title) }
            desc { (description) }
            (content)
        }
    }
}

/// Axes with their marks and names.
fn frame(across: &[(f64, String)], name: &str, up: &[(f64, String)], up_name: &str) -> Markup {
    let [left, right, bottom, top] =
        [ACROSS.0, ACROSS.1, UP.0, UP.1].map(|place| format!("{place:.1}"));
    html! {
        @for (x, label) in across {
            @let x = format!("{x:.1}");
            line.grid x1=(x) x2=(x) y1=(bottom) y2=(top) {}
            text x=(x) y=(format!("{:.1}", UP.0 + 18.0)) text-anchor="middle" { (label) }
        }
        @for (y, label) in up {
            line.grid x1=(left) x2=(right) y1=(format!("{y:.1}")) y2=(format!("{y:.1}")) {}
            text x=(format!("{:.1}", LEFT - 6.0)) y=(format!("{:.1}", y + 4.5)) text-anchor="end" {
                (label)
            }
        }
        path.frame d=(format!("M{left} {top}V{bottom}H{right}")) {}
        text x=(format!("{:.1}", (ACROSS.0 + ACROSS.1) / 2.0)) y=(format!("{:.1}", HEIGHT - 8.0))
            text-anchor="middle" { (name) }
        text transform=(format!("translate(13 {:.1}) rotate(-90)", (UP.0 + UP.1) / 2.0))
            text-anchor="middle" { (up_name) }
    }
}
