//! A watch: changes from the log of a store, one JSON line each, for as long as the call asks for.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;
use serde_json::json;

use super::{selector::Selector, store::Store};

pub(crate) struct Watch {
    store: Arc<Mutex<Store>>,
    plural: String,
    namespace: String,
    selector: Selector,
    from: u64,
    /// The server ends the call then.
    ends: Pin<Box<tokio::time::Sleep>>,
}

impl Watch {
    pub(crate) fn new(
        store: Arc<Mutex<Store>>,
        plural: String,
        namespace: String,
        selector: Selector,
        from: u64,
        lasts: Duration,
    ) -> Self {
        store.lock().watches_open += 1;
        let ends = Box::pin(tokio::time::sleep(lasts));
        Self { store, plural, namespace, selector, from, ends }
    }

    fn next_line(&mut self) -> Option<Bytes> {
        let store = self.store.lock();
        if store.frozen {
            return None;
        }
        let since = store.log.partition_point(|change| change.version <= self.from);
        let change = store.log[since..].iter().find(|change| {
            change.key.0 == self.plural
                && (self.namespace.is_empty() || change.key.1 == self.namespace)
                && self.selector.matches(&change.object)
        })?;
        self.from = change.version;
        let mut line =
            serde_json::to_vec(&json!({ "type": change.kind, "object": change.object })).unwrap();
        line.push(b'\n');
        Some(Bytes::from(line))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.store.lock().watches_open -= 1;
    }
}

impl Body for Watch {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(line) = self.next_line() {
            return Poll::Ready(Some(Ok(Frame::data(line))));
        }
        if self.ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.store.lock().waiting.push(context.waker().clone());
        Poll::Pending
    }
}
