//! Answers that come piece by piece: server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;

use crate::serve::engine::{Event, EventReceiver, gone};
use crate::serve::refusal::Refusal;

/// What an answer writes of each event.
pub trait Render: Send + 'static {
    /// Before all events.
    fn begin(&mut self, out: &mut Out);
    /// An event of the text with this number.
    fn event(&mut self, index: usize, event: Event, out: &mut Out);
    /// After the end of all texts.
    fn end(&mut self, out: &mut Out);
}

/// What is to be sent.
#[derive(Default)]
pub struct Out(Vec<u8>);

impl Out {
    /// An event without a name.
    pub fn data(&mut self, data: &impl Serialize) {
        self.0.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut self.0, data).expect("an answer becomes JSON");
        self.0.extend_from_slice(b"\n\n");
    }

    /// An event with a name.
    pub fn named(&mut self, name: &str, data: &impl Serialize) {
        self.0.extend_from_slice(format!("event: {name}\n").as_bytes());
        self.data(data);
    }

    /// A line of its own.
    pub fn raw(&mut self, data: &str) {
        self.0.extend_from_slice(format!("data: {data}\n\n").as_bytes());
    }

    /// What went wrong.
    pub fn error(&mut self, refusal: &Refusal) {
        self.raw(&refusal.json());
    }
}

/// The events of `texts` texts, as a body.
struct Events<R> {
    events: EventReceiver,
    render: R,
    texts: usize,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Before,
    Within,
    Over,
}

impl<R: Render + Unpin> hyper::body::Body for Events<R> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let mut out = Out::default();
        if this.state == State::Before {
            this.state = State::Within;
            this.render.begin(&mut out);
        }
        while out.0.is_empty() && this.state == State::Within {
            match ready!(this.events.poll_recv(context)) {
                None => {
                    out.error(&gone());
                    this.state = State::Over;
                }
                Some((index, event)) => {
                    let is_end = matches!(event, Event::End(_));
                    this.render.event(index, event, &mut out);
                    this.texts -= usize::from(is_end);
                    if this.texts == 0 {
                        this.render.end(&mut out);
                        this.state = State::Over;
                    }
                }
            }
        }
        Poll::Ready(match out.0.is_empty() {
            true => None,
            false => Some(Ok(Frame::data(out.0.into()))),
        })
    }
}

/// An answer that writes the events of `texts` texts as they come.
pub fn stream(events: EventReceiver, texts: usize, render: impl Render + Unpin) -> Response {
    let body = Events { events, render, texts, state: State::Before };
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::new(body)).into_response()
}
