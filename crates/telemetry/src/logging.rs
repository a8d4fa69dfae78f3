//! `tracing` to standard error, as text or as one JSON object a record.

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;

use crate::{Console, Error, console::Format};

/// Sends the log of this process to `console` from now on, in its format.
///
/// `filter` is in the syntax of `RUST_LOG`: `info` fits a pod, `warn` a command that somebody
/// waits for.
///
/// # Errors
/// [`Error::Filter`] where the filter cannot be understood, [`Error::Logging`] where this was
/// called before.
pub fn init(filter: &str, console: &Console) -> Result<(), Error> {
    let subscriber = subscriber(filter, console)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Logging)
}

fn subscriber(filter: &str, console: &Console) -> Result<Box<dyn Subscriber + Send + Sync>, Error> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| Error::Filter { filter: filter.into(), why: e.to_string() })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // The console would escape the colors, as it does with everything that does not show itself.
        .with_ansi(false)
        .with_writer(console.clone());
    Ok(match console.format() {
        Format::Text => Box::new(builder.with_target(false).finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
}

/// Runs `work` with such a log.
#[cfg(test)]
pub(crate) fn scoped(filter: &str, console: &Console, work: impl FnOnce()) {
    let subscriber = subscriber(filter, console).expect("a valid filter");
    tracing::subscriber::with_default(subscriber, work);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Sink;

    fn log(format: Format, filter: &str) -> String {
        let err = Sink::default();
        let console = Console::new(Box::new(Sink::default()), Box::new(err.clone()), false)
            .with_format(format);
        scoped(filter, &console, || {
            tracing::info!("quiet");
            tracing::warn!(volume = "data", "server is \u{1b}[31mbusy");
        });
        err.text()
    }

    #[test]
    fn text_is_one_plain_line_a_record() {
        let text = log(Format::Text, "info");
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("INFO quiet"), "{text}");
        assert!(text.contains("volume=\"data\""), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn json_is_one_object_a_record() {
        let text = log(Format::Json, "warn");
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["level"], "WARN");
        assert_eq!(record["volume"], "data");
        assert_eq!(record["message"], "server is \u{1b}[31mbusy");
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let console = Console::new(Box::new(Sink::default()), Box::new(Sink::default()), false);
        let error = subscriber("pvferry=loud", &console).err().unwrap();
        assert!(error.to_string().contains("pvferry=loud"), "{error}");
    }
}
