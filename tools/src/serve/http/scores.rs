//! What a model does without making a text: `/score`, `/classify`, `/v1/embeddings`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cerebellum::classify::{
    Calibration, Classification, Classifier, ClassifierOptions, Normalization, Template,
};
use cerebellum::score::Continuations;
use cerebellum::text::EncodeOptions;
use cerebellum::{Pooling, Session, TokenizerBytes};
use serde::{Deserialize, Serialize};

use super::{Server, body, on_a_thread};
use crate::scored::Scored;
use crate::serve::refusal::Refusal;
use crate::serve::wire::answer::Usage;
use crate::serve::wire::prompt::{Prompts, encode};

/// The most labels, or continuations.
const MAX_CHOICES: usize = 4096;

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl From<OneOrMore> for Vec<String> {
    fn from(texts: OneOrMore) -> Self {
        match texts {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        }
    }
}

#[derive(Serialize)]
struct Scores {
    model: String,
    prompt_tokens: usize,
    continuations: Vec<Scored>,
}

/// How probable continuations of a prompt are.
pub async fn score(State(server): State<Arc<Server>>, request: Body) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let prompt: String = fields.take("prompt")?.unwrap_or_default();
    let texts: Vec<String> = fields.need::<OneOrMore>("continuations")?.into();
    fields.finish()?;
    if texts.is_empty() || texts.len() > MAX_CHOICES || texts.iter().any(String::is_empty) {
        let message = format!("continuations: give 1 to {MAX_CHOICES} texts, none of them empty");
        return Err(Refusal::param("continuations", message));
    }
    let (prompt, ids, texts) = {
        let server = Arc::clone(&server);
        on_a_thread(move || {
            let (tokenizer, context) = (server.engine.tokenizer(), server.engine.context());
            let prompt = encode(tokenizer, &prompt, context).map_err(|it| it.about("prompt"))?;
            let ids = texts.iter().map(|text| {
                let ids = tokenizer.encode_within(text, EncodeOptions::default(), context);
                ids.map_err(|error| Refusal::from(error).about("continuations"))
            });
            let ids: Vec<Vec<u32>> = ids.collect::<Result<_, _>>()?;
            Ok((prompt, ids, texts))
        })
        .await?
    };
    let name = server.options.name.clone();
    let scores = server.engine.look(move |session| {
        let tree = Continuations::new(&ids)?;
        let rest = reuse(session, &prompt)?;
        let scores = session.score(rest, &tree)?;
        let continuations = Scored::all(texts, ids, &scores);
        Ok(Scores { model: name, prompt_tokens: session.position(), continuations })
    });
    Ok(body::json(&scores.await?))
}

/// Leaves in a session what it has in common with a prompt, but for the last token; returns the rest of it.
fn reuse<'a>(session: &mut Session, prompt: &'a [u32]) -> Result<&'a [u32], Refusal> {
    let common = prompt.iter().zip(session.tokens()).take_while(|(a, b)| a == b).count();
    let kept = common.min(prompt.len().saturating_sub(1));
    session.rewind(kept)?;
    Ok(&prompt[kept..])
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum NormalizationName {
    Sum,
    Mean,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CalibrationName {
    None,
    ContentFree,
    MutualInformation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    text: String,
    label: String,
}

#[derive(Serialize)]
struct Classes {
    model: String,
    results: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    label: String,
    probability: f64,
    /// In the order of the labels.
    probabilities: Vec<LabelProbability>,
}

#[derive(Serialize)]
struct LabelProbability {
    label: String,
    probability: f64,
}

/// The most probable label of each text.
pub async fn classify(
    State(server): State<Arc<Server>>,
    request: Body,
) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let texts: Vec<String> = fields.need::<OneOrMore>("text")?.into();
    let labels: Vec<String> = fields.need("labels")?;
    let template: Option<String> = fields.take("template")?;
    let examples: Vec<Example> = fields.take("examples")?.unwrap_or_default();
    let normalization = match fields.take("normalization")? {
        None | Some(NormalizationName::Sum) => Normalization::Sum,
        Some(NormalizationName::Mean) => Normalization::Mean,
    };
    let calibration = match fields.take("calibration")? {
        None | Some(CalibrationName::None) => Calibration::None,
        Some(CalibrationName::ContentFree) => Calibration::ContentFree,
        Some(CalibrationName::MutualInformation) => Calibration::MutualInformation,
    };
    fields.finish()?;
    if labels.len() > MAX_CHOICES {
        let message = format!("labels: give at most {MAX_CHOICES}");
        return Err(Refusal::param("labels", message));
    }
    let template = match template {
        Some(template) => Template::parse(&template),
        None => Template::for_model(server.engine.model()),
    };
    let options = ClassifierOptions {
        template: template.map_err(|error| Refusal::from(error).about("template"))?,
        examples: examples.into_iter().map(|example| (example.text, example.label)).collect(),
        normalization,
        calibration,
    };
    let (asked, name) = (Arc::clone(&server), server.options.name.clone());
    let classes = server.engine.look(move |session| {
        let (model, tokenizer) = (asked.engine.model(), asked.engine.tokenizer());
        let classifier = Classifier::for_model(model, tokenizer, &labels, &options)?;
        let bias = classifier.calibrate(session)?;
        let results = texts.iter().map(|text| {
            let classified = classifier.classify_with(&bias, session, text);
            let classified = classified.map_err(|error| Refusal::from(error).about("text"))?;
            Ok(class(&classifier, &classified))
        });
        let results = results.collect::<Result<_, Refusal>>()?;
        Ok(Classes { model: name, results })
    });
    Ok(body::json(&classes.await?))
}

fn class(classifier: &Classifier<TokenizerBytes>, classified: &Classification) -> Class {
    let labels = classifier.labels().iter().zip(&classified.probabilities);
    Class {
        label: classifier.labels()[classified.label].clone(),
        probability: classified.probability(),
        probabilities: labels
            .map(|(label, &probability)| LabelProbability { label: label.clone(), probability })
            .collect(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum EncodingFormat {
    Float,
    Base64,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PoolingName {
    Mean,
    Last,
}

#[derive(Serialize)]
struct Embeddings {
    object: &'static str,
    model: String,
    data: Vec<Embedding>,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    /// Base64 of float32, little-endian.
    Text(String),
}

/// A vector of length 1 for each text.
pub async fn embeddings(
    State(server): State<Arc<Server>>,
    request: Body,
) -> Result<Response, Refusal> {
    let mut fields = body::fields(request, server.options.max_body).await?;
    server.check_model(&mut fields)?;
    let input: Prompts = fields.need("input")?;
    let format = fields.take("encoding_format")?.unwrap_or(EncodingFormat::Float);
    let pooling = match fields.take("pooling")? {
        None | Some(PoolingName::Mean) => Pooling::Mean,
        Some(PoolingName::Last) => Pooling::Last,
    };
    let size = server.engine.model().config().n_embd;
    let _: Option<serde_json::Value> = fields.take("user")?;
    fields.refuse("dimensions", &[&size.to_string()], "this model's vectors have one size")?;
    fields.finish()?;
    let inputs = {
        let server = Arc::clone(&server);
        on_a_thread(move || {
            let inputs = input.prompts(server.engine.tokenizer(), server.engine.context());
            inputs.map_err(|refusal| refusal.about("input"))
        })
        .await?
    };
    if inputs.iter().any(|input| input.tokens.is_empty()) {
        return Err(Refusal::param("input", "input: an empty text has no embedding; give a text"));
    }
    let mut usage = Usage::default();
    let mut data = Vec::new();
    for (index, input) in inputs.into_iter().enumerate() {
        usage.prompt_tokens += input.tokens.len();
        let vector = server.engine.look(move |session| {
            session.reset();
            let mut vector = vec![0.0; size];
            session.embed(&input.tokens, pooling, &mut vector)?;
            Ok(vector)
        });
        let vector = vector.await.map_err(|refusal| refusal.about("input"))?;
        let embedding = match format {
            EncodingFormat::Float => Vector::Numbers(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Vector::Text(BASE64_STANDARD.encode(bytes))
            }
        };
        data.push(Embedding { object: "embedding", index, embedding });
    }
    usage.total_tokens = usage.prompt_tokens;
    let model = server.options.name.clone();
    Ok(body::json(&Embeddings { object: "list", model, data, usage }))
}
