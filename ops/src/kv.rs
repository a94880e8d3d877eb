//! `holm put`, `get` and `del`: one key at a time.
//!
//! A get shows every sibling and one context. Handing that context to a put or delete replaces
//! exactly what the get showed; what others wrote meanwhile stays beside it. A put without a
//! context adds a sibling. A delete without one reads first, at the same level, and says so (in an
//! `lww` bucket none is needed: the clock decides).

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use bytes::Bytes;
use holm_client::{BucketKind, Context, Got, Written};
use holm_protocol::admin::ClusterView;
use holm_protocol::limits::VALUE_LEN_MAX;
use holm_protocol::message::Sibling;
use serde_json::{Value, json};

use crate::cli::{DelArgs, GetArgs, Global, KeyArgs, PutArgs};
use crate::failure::{Failure, Status};
use crate::output::{Output, Table};
use crate::session::{self, Session, parse_context};
use crate::text;

impl KeyArgs {
    /// The key's bytes.
    pub(crate) fn key_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.key.as_bytes())
    }

    /// Bucket and key, as every JSON answer begins.
    pub(crate) fn for_scripts(&self) -> Value {
        let (key, key_encoding) = text::bytes_for_scripts(self.key.as_bytes());
        json!({ "bucket": self.bucket, "key": key, "key_encoding": key_encoding })
    }
}

/// Runs `holm put`.
///
/// # Errors
/// The value cannot be read, or the write was refused or is unknown.
pub(crate) async fn put(global: &Global, output: &Output, args: PutArgs) -> Result<(), Failure> {
    let context = args.context.as_deref().map(parse_context).transpose()?;
    let value = read_value(args.value)?;
    let session = Session::open(global).await?;
    let bucket = session.bucket(&args.place.bucket).await?;
    let mut put = bucket.put(args.place.key_bytes(), value);
    if let Some(level) = args.consistency {
        put = put.level(level);
    }
    if let Some(context) = &context {
        put = put.context(context);
    }
    let written = put.await?;
    print_written(output, &args.place, &written, &session.view().await?)
}

/// Runs `holm get`.
///
/// # Errors
/// The key is absent, has siblings although `--raw` was given, or too few replicas answered.
pub(crate) async fn get(global: &Global, output: &Output, args: GetArgs) -> Result<(), Failure> {
    let session = Session::open(global).await?;
    let bucket = session.bucket(&args.place.bucket).await?;
    let mut get = bucket.get(args.place.key_bytes());
    if let Some(level) = args.consistency {
        get = get.level(level);
    }
    let got = get.await?;
    if args.raw {
        return match got.siblings() {
            [] => Err(absent(&args.place)),
            [only] => output.raw(&only.value),
            several => Err(Failure::failed(
                format!("the key has {} siblings; `--raw` prints one value", several.len()),
                "see them with `holm get`, then replace them: `holm put ... --context C`",
            )),
        };
    }
    let view = session.view().await?;
    output.result(
        || {
            let mut json = args.place.for_scripts();
            json["siblings"] = got.siblings().iter().map(sibling_for_scripts).collect();
            json["context"] = json!(got.context().to_string());
            json["receipt"] = session::receipt_for_scripts(got.receipt(), &view);
            json
        },
        || got_for_people(&got, &view),
    )?;
    if got.siblings().is_empty() { Err(absent(&args.place)) } else { Ok(()) }
}

/// Runs `holm del`.
///
/// # Errors
/// As [`put`]; also if there is nothing to delete.
pub(crate) async fn del(global: &Global, output: &Output, args: DelArgs) -> Result<(), Failure> {
    let given = args.context.as_deref().map(parse_context).transpose()?;
    let session = Session::open(global).await?;
    let bucket = session.bucket(&args.place.bucket).await?;
    let context = match given {
        Some(context) => context,
        None if bucket.policy().kind == BucketKind::Lww => Context::default(),
        None => {
            let mut get = bucket.get(args.place.key_bytes());
            if let Some(level) = args.consistency {
                get = get.level(level);
            }
            let got = get.await?;
            if got.siblings().is_empty() {
                return Err(absent(&args.place));
            }
            let found = text::count(got.siblings().len(), "value");
            output
                .note(&format!("no --context given: read the key now, deleting the {found} found"));
            got.context().clone()
        }
    };
    let mut delete = bucket.delete(args.place.key_bytes()).context(&context);
    if let Some(level) = args.consistency {
        delete = delete.level(level);
    }
    let written = delete.await?;
    print_written(output, &args.place, &written, &session.view().await?)
}

fn print_written(
    output: &Output,
    place: &KeyArgs,
    written: &Written,
    view: &ClusterView,
) -> Result<(), Failure> {
    output.result(
        || {
            let mut json = place.for_scripts();
            json["dot"] = json!(written.dot().to_string());
            json["time"] = json!(text::utc(written.hlc()));
            json["context"] = json!(written.context().to_string());
            json["receipt"] = session::receipt_for_scripts(written.receipt(), view);
            json
        },
        || {
            format!(
                "dot:     {}\ntime:    {}\nheld by: {}\ncontext: {}\n",
                written.dot(),
                text::utc(written.hlc()),
                session::receipt_for_people(written.receipt(), view),
                context_text(written.context()),
            )
        },
    )
}

fn sibling_for_scripts(sibling: &Sibling) -> Value {
    let (value, encoding) = text::bytes_for_scripts(&sibling.value);
    json!({
        "value": value,
        "encoding": encoding,
        "dot": sibling.dot.to_string(),
        "time": text::utc(sibling.hlc),
    })
}

fn got_for_people(got: &Got, view: &ClusterView) -> String {
    let mut out = siblings_for_people(got.siblings());
    out.push_str(&format!(
        "answered by: {}\ncontext: {}\n",
        session::receipt_for_people(got.receipt(), view),
        got.context(),
    ));
    out
}

fn siblings_for_people(siblings: &[Sibling]) -> String {
    if siblings.is_empty() {
        return "absent\n".to_owned();
    }
    let mut table = Table::new(["DOT", "TIME", "VALUE"]);
    for sibling in siblings {
        let value = text::bytes_for_people(&sibling.value);
        table.row([sibling.dot.to_string(), text::utc(sibling.hlc), value]);
    }
    let mut out = table.render();
    if siblings.len() > 1 {
        out.push_str(&format!(
            "{} siblings: written concurrently, none overwrote another\n",
            siblings.len()
        ));
    }
    out
}

fn absent(place: &KeyArgs) -> Failure {
    let key = text::bytes_for_people(place.key.as_bytes());
    Failure::new(
        Status::NotFound,
        format!("key `{key}` of bucket `{}` is absent", place.bucket),
        "a higher `--consistency` asks more replicas",
    )
}

/// The value from the command line, or from standard input.
fn read_value(value: Option<OsString>) -> Result<Bytes, Failure> {
    let mut stdin = std::io::stdin();
    match value {
        Some(value) if value != "-" => Ok(value.into_vec().into()),
        None if stdin.is_terminal() => Err(Failure::usage(
            "no value given",
            "put it after the key, or pipe it in: `holm put BUCKET KEY < FILE`",
        )),
        _ => read_limited(&mut stdin),
    }
}

/// Reads to the end, but never more than the longest value and one byte: enough to know that it is
/// too long.
fn read_limited(from: &mut impl Read) -> Result<Bytes, Failure> {
    let mut value = Vec::new();
    from.take(VALUE_LEN_MAX as u64 + 1).read_to_end(&mut value).map_err(|error| {
        Failure::failed(format!("cannot read standard input: {error}"), "nothing was written")
    })?;
    if value.len() > VALUE_LEN_MAX {
        return Err(Failure::failed(
            format!("the value is longer than {VALUE_LEN_MAX} bytes"),
            "split it over several keys",
        ));
    }
    Ok(value.into())
}

/// A writer's context for people: an empty one says what to do instead.
fn context_text(context: &Context) -> String {
    if context.is_empty() {
        "none, as other values are alive that this write has not seen: read before the next one"
            .to_owned()
    } else {
        context.to_string()
    }
}

#[cfg(test)]
mod tests {
    use holm_protocol::dot::Dot;
    use holm_protocol::ids::{Actor, Hlc};

    use super::*;

    fn sibling(counter: u64, value: &'static [u8]) -> Sibling {
        Sibling {
            value: Bytes::from_static(value),
            hlc: Hlc::new(1_700_000_000_000, 0),
            dot: Dot::new(Actor(0xab), counter),
        }
    }

    /// Goal: a person sees every sibling with dot, time and value, also binary ones. Method: two
    /// siblings, in full.
    #[test]
    fn siblings_are_shown_in_full() {
        let shown = siblings_for_people(&[sibling(1, b"books"), sibling(2, &[0xff])]);
        let want = "\
DOT                 TIME                      VALUE
00000000000000ab:1  2023-11-14T22:13:20.000Z  books
00000000000000ab:2  2023-11-14T22:13:20.000Z  0xff
2 siblings: written concurrently, none overwrote another
";
        assert_eq!(shown, want);
        assert_eq!(siblings_for_people(&[]), "absent\n");
    }

    /// Goal: the JSON of a sibling is a contract. Method: in full, text and binary.
    #[test]
    fn sibling_json_is_stable() {
        let text = sibling_for_scripts(&sibling(1, b"books"));
        let want = json!({
            "value": "books",
            "encoding": "utf8",
            "dot": "00000000000000ab:1",
            "time": "2023-11-14T22:13:20.000Z",
        });
        assert_eq!(text, want);
        assert_eq!(sibling_for_scripts(&sibling(2, &[0xff]))["encoding"], "hex");
    }

    /// Goal: standard input cannot fill memory. Method: endless input.
    #[test]
    fn endless_input_is_refused() {
        assert!(read_limited(&mut std::io::repeat(b'x')).is_err());
        assert_eq!(read_limited(&mut &b"abc"[..]).unwrap(), "abc");
    }
}
