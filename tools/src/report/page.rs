//! The page's sections, from what is asked first to how it was measured.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::measured::{Measured, Report, schemes};
use super::plots;
use crate::eval::{Comparison, Metrics};
use crate::summary::{Summary, TensorSummary, choice_of};

const STYLE: &str = include_str!("style.css");

/// Nothing but what is in the page, even if something got in that should not have.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(super) fn page(report: &Report) -> String {
    let first = report.models.first().expect("a report has at least one model");
    let title = match report.models.len() {
        1 => format!("What quantization cost: {}", first.name),
        count => format!("What quantization cost: {count} model files"),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.soft { (origin(first)) }
                }
                main {
                    (summary(report))
                    (divergence(report))
                    (size_and_quality(report))
                    (ablation(report))
                    (tensors(report))
                    (method(report))
                }
            }
        }
    };
    page.into_string() + "\n"
}

/// [`schemes`], to be broken at commas only.
fn unbroken(summary: &Summary) -> String {
    schemes(summary).replace(' ', "\u{a0}").replace(",\u{a0}", ", ")
}

/// Which network this is.
fn origin(model: &Measured) -> String {
    let summary = &model.summary;
    let config = &summary.config;
    format!(
        "{} parameters: {} layers, width {}, vocabulary of {}",
        grouped(summary.parameters),
        config.n_layer,
        config.n_embd,
        grouped(config.vocab_size as u64),
    )
}

fn summary(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Summary" }
            @match report.models.as_slice() {
                [model] => (tiles(model)),
                models => (comparison_table(models)),
            }
        }
    }
}

/// One model in one look.
fn tiles(model: &Measured) -> Markup {
    let summary = &model.summary;
    let source = summary.source.as_ref().map(|source| source.bytes).filter(|&bytes| bytes > 0);
    let of_source = source.map(|bytes| {
        let share = 100.0 * summary.file_bytes as f64 / bytes as f64;
        format!("{share:.1} % of the checkpoint's {}", megabytes(bytes))
    });
    let comparison = model.metrics.as_ref().and_then(|metrics| metrics.comparison.as_ref());
    html! {
        dl.tiles {
            (tile("Size", &megabytes(summary.file_bytes), of_source.as_deref()))
            (tile("Bits per weight", &format!("{:.2}", summary.bits_per_weight), Some(&unbroken(summary))))
            @if let Some(c) = comparison {
                (tile("Perplexity", &change(c.perplexity_ratio),
                    interval(c.perplexity_ratio_interval, change).as_deref()))
                (tile("Mean KL, nats", &nats(c.kl_mean),
                    interval(c.kl_mean_interval, nats).as_deref()))
                (tile("99 % KL, nats", &nats(c.kl_p99),
                    interval(c.kl_p99_interval, nats).as_deref()))
                (tile("Same most likely token", &percent(c.top1_agreement),
                    interval(c.top1_agreement_interval, percent).as_deref()))
            } @else if let Some(metrics) = &model.metrics {
                (tile("Perplexity", &format!("{:.3}", metrics.perplexity),
                    interval(metrics.perplexity_interval, fixed).as_deref()))
            }
        }
        @if let Some(c) = comparison {
            p { (verdict(c)) }
        }
    }
}

fn tile(name: &str, value: &str, more: Option<&str>) -> Markup {
    html! {
        div.tile {
            dt { (name) }
            dd.value { (value) }
            @if let Some(more) = more {
                dd.soft { (more) }
            }
        }
    }
}

/// The comparison in a sentence.
fn verdict(comparison: &Comparison) -> String {
    let Comparison { perplexity_ratio, top1_agreement, kl_p99, .. } = comparison;
    let certain = match comparison.perplexity_ratio_interval {
        None => "the text is too short to say how certain that is",
        Some([low, _]) if low > 1.0 => "more than chance explains",
        Some([_, high]) if high < 1.0 => "less, and by more than chance explains",
        Some(_) => "no more than chance explains",
    };
    format!(
        "Perplexity changes by {} from the float model's ({certain}); of 100 tokens, {:.0} stay the most \
         likely ones, and the prediction of one moves by more than {} nats.",
        change(*perplexity_ratio),
        100.0 * top1_agreement,
        nats(*kl_p99),
    )
}

/// Several models side by side.
fn comparison_table(models: &[Measured]) -> Markup {
    let compared = models.iter().any(|model| comparison(model).is_some());
    html! {
        div.scroll tabindex="0" role="region" aria-label="Models side by side" {
            table.models {
                (caption("Models side by side; small print: 95 % confidence intervals"))
                thead {
                    tr {
                        th scope="col" { "Model" }
                        th scope="col" { "Bits\u{a0}per weight" }
                        th scope="col" { "Size" }
                        (measured_heads(compared))
                    }
                }
                tbody {
                    @for (index, model) in models.iter().enumerate() {
                        tr {
                            th scope="row" {
                                (plots::letter(index)) " " (model.name)
                                span.soft { (unbroken(&model.summary)) }
                            }
                            td { (format!("{:.2}", model.summary.bits_per_weight)) }
                            td { (megabytes(model.summary.file_bytes)) }
                            @match &model.metrics {
                                Some(metrics) => (measured_cells(metrics)),
                                None => td { "not measured" },
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A table's caption. It is as wide as the screen and stays there while a wider table is scrolled; the
/// `caption` itself is as wide as the table.
fn caption(text: &str) -> Markup {
    html! { caption { span { (text) } } }
}

fn comparison(model: &Measured) -> Option<&Comparison> {
    model.metrics.as_ref()?.comparison.as_ref()
}

/// The heads of [`measured_cells`].
fn measured_heads(compared: bool) -> Markup {
    html! {
        @if compared {
            th scope="col" { "Perplexity change" }
            th scope="col" { "Mean KL" }
            th scope="col" { "95 % KL" }
            th scope="col" { "99 % KL" }
            th scope="col" { "Same top token" }
        }
        th scope="col" { "Perplexity" }
    }
}

/// What is lost, if there is a reference, and the perplexity.
fn measured_cells(metrics: &Metrics) -> Markup {
    html! {
        @if let Some(c) = &metrics.comparison {
            (cell(&change(c.perplexity_ratio), interval(c.perplexity_ratio_interval, change)))
            (cell(&nats(c.kl_mean), interval(c.kl_mean_interval, nats)))
            (cell(&nats(c.kl_p95), interval(c.kl_p95_interval, nats)))
            (cell(&nats(c.kl_p99), interval(c.kl_p99_interval, nats)))
            (cell(&percent(c.top1_agreement), interval(c.top1_agreement_interval, percent)))
        }
        td { (fixed(metrics.perplexity)) }
    }
}

fn cell(value: &str, interval: Option<String>) -> Markup {
    html! {
        td {
            (value)
            @if let Some(interval) = interval {
                span.soft { (interval) }
            }
        }
    }
}

fn divergence(report: &Report) -> Markup {
    let models = report.models.iter().enumerate();
    let models: Vec<_> = models
        .filter_map(|(i, model)| Some((i, model, model.divergence.as_ref()?, comparison(model)?)))
        .collect();
    let named: Vec<_> = models.iter().map(|&(index, model, ..)| (index, model)).collect();
    html! {
        @if !models.is_empty() {
            section {
                h2 { "How far predictions move" }
                figure {
                    (plots::divergence(&models))
                    @if named.len() > 1 { (plots::key(&named)) }
                    figcaption {
                        "Kullback-Leibler divergence of each token's prediction from the float model's: 0 is \
                         no change. Further left is better; the tail on the right is where text changes."
                    }
                }
            }
        }
    }
}

fn size_and_quality(report: &Report) -> Markup {
    let models = report.models.iter().enumerate();
    let models: Vec<_> =
        models.filter_map(|(i, model)| Some((i, model, comparison(model)?))).collect();
    let named: Vec<_> = models.iter().map(|&(index, model, _)| (index, model)).collect();
    html! {
        @if models.len() > 1 {
            section {
                h2 { "Size and quality" }
                figure {
                    (plots::size_and_quality(&models))
                    (plots::key(&named))
                    figcaption {
                        "Further left is smaller, further down is closer to the float model. Bars are 95 % \
                         confidence intervals."
                    }
                }
            }
        }
    }
}

fn ablation(report: &Report) -> Markup {
    let models: Vec<_> = report.models.iter().filter(|m| !m.ablation.is_empty()).collect();
    html! {
        @if !models.is_empty() {
            section {
                h2 { "Where the loss comes from" }
                p.soft {
                    "Each row quantizes more than the one above. “Weights only” runs the file's weights in \
                     float32; the next is the runtime, whose activations are int8 and whose cache is float16; \
                     the last one also has its cache in int8."
                }
                @for model in models {
                    div.scroll tabindex="0" role="region" aria-label=(format!("Ablation of {}", model.name)) {
                        (ablation_table(model))
                    }
                }
            }
        }
    }
}

fn ablation_table(model: &Measured) -> Markup {
    html! {
        table {
            (caption(&model.name))
            thead {
                tr {
                    th scope="col" { "Quantized" }
                    (measured_heads(true))
                }
            }
            tbody {
                @for (step, metrics) in &model.ablation {
                    tr {
                        th scope="row" { (step.label()) }
                        (measured_cells(metrics))
                    }
                }
            }
        }
    }
}

fn tensors(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Error of each matrix" }
            p.soft {
                "Norm of the rounding error over the norm of the weights. It says how coarsely a matrix is \
                 stored, not how much that matters: the figures above do."
                @if report.models.iter().any(|model| model.summary.choices().is_some()) {
                    " Where formats were chosen under a budget of bits, the last column has what each \
                     matrix is expected to cost if it alone is rounded, by which they were chosen."
                }
            }
            @for (index, model) in report.models.iter().enumerate() {
                @if report.models.len() == 1 {
                    (tensor_table(model))
                } @else {
                    details open[index == 0] {
                        summary { (plots::letter(index)) " " (model.name) }
                        (tensor_table(model))
                    }
                }
            }
        }
    }
}

fn tensor_table(model: &Measured) -> Markup {
    let tensors = &model.summary.tensors;
    let choices = model.summary.choices();
    let matrices: Vec<&TensorSummary> = tensors.iter().filter(|t| t.group_size.is_some()).collect();
    let errors = matrices.iter().filter_map(|tensor| tensor.relative_error);
    let largest = f64::from(errors.fold(0.0, f32::max));
    let mut kinds: Vec<(&str, Option<usize>)> =
        matrices.iter().map(|tensor| (tensor.scheme, tensor.group_size)).collect();
    kinds.sort();
    kinds.dedup();
    let kind = |tensor: &TensorSummary| {
        kinds.iter().position(|&kind| kind == (tensor.scheme, tensor.group_size)).unwrap_or(0)
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label=(format!("Matrices of {}", model.name)) {
            table {
                (caption(&format!("Matrices of {}", model.name)))
                thead {
                    tr {
                        th scope="col" { "Matrix" }
                        th scope="col" { "Error" }
                        th scope="col" { span.visually-hidden { "Error as a bar" } }
                        th scope="col" { "Scheme" }
                        th scope="col" { "Bits\u{a0}per weight" }
                        @if choices.is_some() {
                            th scope="col" { "KL\u{a0}alone" }
                        }
                    }
                }
                tbody {
                    @for tensor in matrices {
                        tr {
                            th scope="row" { (tensor.name.trim_end_matches(".weight")) }
                            @match tensor.relative_error.map(f64::from) {
                                Some(error) => {
                                    td { (format!("{:.2} %", 100.0 * error)) }
                                    td.bar-cell { (plots::bar(error / largest, kind(tensor))) }
                                }
                                None => { td { "not recorded" } td {} }
                            }
                            td { (tensor.scheme) " / " (tensor.group_size.unwrap_or(0)) }
                            td { (format!("{:.2}", tensor.bits_per_weight)) }
                            @if let Some(choices) = choices {
                                td { (cost(choices, &tensor.name)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a matrix is expected to cost alone, by which its format was chosen.
fn cost(choices: &[serde_json::Value], tensor: &str) -> String {
    let cost = choice_of(choices, tensor, "kl").and_then(|cost| cost.as_f64());
    cost.map_or(String::new(), nats)
}

fn method(report: &Report) -> Markup {
    let metrics = report.models.iter().find_map(|model| model.metrics.as_ref());
    html! {
        section {
            h2 { "How it was measured" }
            dl.facts {
                @if let (Some(text), Some(metrics)) = (&report.text, metrics) {
                    (fact("Text", html! {
                        (text.name) ", " (grouped(text.tokens as u64)) " tokens, BLAKE3 " code { (text.digest) }
                    }))
                    (fact("Windows", html! {
                        (format!("{} of {} tokens without overlap, each from an empty cache; every token except the first \
                          of a window has a score: {}", grouped(metrics.windows as u64), metrics.window,
                          grouped(metrics.tokens as u64)))
                    }))
                    @if let Some(comparison) = &metrics.comparison {
                        (fact("Reference", html! {
                            (format!("the checkpoint in float32, perplexity {:.3}", comparison.reference_perplexity))
                        }))
                    }
                    (fact("Intervals", html! {
                        "95 %, by normal approximation over the windows' means, for quantiles by the bootstrap over \
                         windows; none below 10 windows"
                    }))
                } @else {
                    (fact("Text", html! { "none: only what the file itself records is shown" }))
                }
                @if let Some(source) = report.models.iter().find_map(|m| m.summary.source.as_ref()) {
                    (fact("Checkpoint", html! {
                        (megabytes(source.bytes)) " of weights, " code { (source.digest) }
                    }))
                }
                @for model in &report.models {
                    (fact(&model.name, html! {
                        (grouped(model.summary.file_bytes)) " bytes, BLAKE3 " code { (model.digest) }
                        @if model.metrics.is_some() { ", cache in " (model.kv) }
                        ". Quantizer: " code { (model.summary.record()) }
                    }))
                }
                (fact("Measured by", html! { "cerebellum " (env!("CARGO_PKG_VERSION")) }))
            }
        }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! {
        dt { (name) }
        dd { (value) }
    }
}

/// `+2.96 %`, of a ratio; as all figures here, it does not break before its unit.
fn change(ratio: f64) -> String {
    format!("{:+.2}\u{a0}%", 100.0 * (ratio - 1.0)).replace('-', "−")
}

fn percent(share: f64) -> String {
    format!("{:.2}\u{a0}%", 100.0 * share)
}

fn fixed(value: f64) -> String {
    format!("{value:.3}")
}

/// A divergence with three digits that count.
fn nats(value: f64) -> String {
    let digits = (2.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

fn interval(ends: Option<[f64; 2]>, show: fn(f64) -> String) -> Option<String> {
    ends.map(|[low, high]| format!("{} to\u{a0}{}", show(low), show(high)))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}\u{a0}MB", bytes as f64 / 1e6)
}

/// `101 178`, with thin spaces that do not break.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits"))
        .collect();
    groups.join("\u{202f}")
}
