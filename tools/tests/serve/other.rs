//! What the server does besides texts.

use cerebellum::classify::{Classifier, ClassifierOptions, Template};
use cerebellum::text::EncodeOptions;
use cerebellum::{LogitsFor, Pooling, SessionOptions};
use serde_json::{Value, json};

use crate::server::{Server, Settings, model};

#[test]
fn tokens_of_texts_and_back() {
    let server = Server::start(Settings::default());
    let text = "Once upon a time… äöü 😀";
    let tokenizer = model().tokenizer().unwrap();
    let wanted = tokenizer.encode(text, EncodeOptions::default()).unwrap();
    let answer = server.ask("/tokenize", &json!({"text": text}));
    assert_eq!((&answer["tokens"], &answer["count"]), (&json!(wanted), &wanted.len().into()));
    assert_eq!(answer["pieces"].as_array().unwrap().len(), wanted.len());
    let answer = server.ask("/detokenize", &json!({"tokens": wanted}));
    assert_eq!(answer["text"], text);
    let answer = server.ask("/tokenize", &json!({"messages": [{"role": "user", "content": "Hi"}]}));
    let wanted = tokenizer.encode("user: Hi\nassistant:", EncodeOptions::default()).unwrap();
    assert_eq!(answer["tokens"], json!(wanted));
    let (status, answer) = server.post("/detokenize", &json!({"tokens": [1 << 30]}));
    assert_eq!((status, &answer["error"]["param"]), (400, &"tokens".into()));
}

#[test]
fn classes_and_embeddings_are_those_of_the_library() {
    let server = Server::start(Settings::default());
    let model = model();
    let tokenizer = model.tokenizer().unwrap();
    let options = SessionOptions { logits: LogitsFor::All, ..Default::default() };
    let mut session = model.session(&options).unwrap();
    let labels = ["alarm", "timer", "weather"];
    let template = "Utterance: {text}\nIntent: {label}";
    let how =
        ClassifierOptions { template: Template::parse(template).unwrap(), ..Default::default() };
    let classifier = Classifier::new(&tokenizer, &labels, &how).unwrap();
    let texts = ["set an alarm for six", "how warm is it"];
    let body = json!({"text": texts, "labels": labels, "template": template});
    let answer = server.ask("/classify", &body);
    for (i, text) in texts.iter().enumerate() {
        let wanted = classifier.classify(&mut session, text).unwrap();
        let got = &answer["results"][i];
        assert_eq!(got["label"], labels[wanted.label]);
        let got: Vec<&Value> =
            got["probabilities"].as_array().unwrap().iter().map(|it| &it["probability"]).collect();
        let wanted: Vec<Value> = wanted.probabilities.iter().map(|&p| p.into()).collect();
        assert_eq!(got, wanted.iter().collect::<Vec<_>>());
    }
    for (pooling, name) in [(Pooling::Mean, "mean"), (Pooling::Last, "last")] {
        let mut wanted = vec![0.0; model.config().n_embd];
        session.reset();
        let tokens = session.encode(&tokenizer, texts[0], EncodeOptions::default()).unwrap();
        session.embed(&tokens, pooling, &mut wanted).unwrap();
        let body = json!({"input": [texts[0], "x"], "pooling": name});
        let answer = server.ask("/v1/embeddings", &body);
        let got: Vec<f32> = serde_json::from_value(answer["data"][0]["embedding"].clone()).unwrap();
        assert_eq!(got, wanted);
        assert_eq!(answer["usage"]["prompt_tokens"].as_u64().unwrap(), tokens.len() as u64 + 1);
        let body = json!({"input": texts[0], "pooling": name, "encoding_format": "base64"});
        let answer = server.ask("/v1/embeddings", &body);
        let text = answer["data"][0]["embedding"].as_str().unwrap();
        assert_eq!(text.len(), (wanted.len() * 4).div_ceil(3) * 4);
    }
}

#[test]
fn what_it_says_of_itself() {
    let server = Server::start(Settings::default());
    let (status, text) = server.get("/v1/models");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["data"][0]["id"]), (200, &"demo".into()));
    assert_eq!(answer["data"][0]["has_chat_template"], true);
    assert_eq!(server.get("/v1/models/demo").0, 200);
    assert_eq!(server.get("/v1/models/other").0, 404);
    assert_eq!(server.get("/health"), (200, r#"{"status":"ok"}"#.to_owned()));
    assert!(server.count("requests_answered_total") >= 3);
}
