//! TLA+ values as TLC prints them, and what differs between two of them.
//!
//! A counterexample prints every variable in every state. What a reader wants is what a step
//! changed: [`Value::changes`] walks two values side by side and names the innermost places that
//! differ. Text that is no value of a known form stays as it is, as an atom.

use std::fmt;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A number, a string with its quotes, TRUE, FALSE, a model value, or text of unknown form.
    Atom(String),
    /// `{a, b}`, in the order printed.
    Set(Vec<Value>),
    /// `<<a, b>>`.
    Sequence(Vec<Value>),
    /// `[name |-> value]`.
    Record(Vec<(String, Value)>),
    /// `(key :> value @@ ...)`.
    Function(Vec<(Value, Value)>),
}

impl Value {
    /// Reads a value. Never fails: what cannot be read is an atom.
    pub(super) fn parse(text: &str) -> Value {
        let mut reader = Reader { rest: text };
        match reader.value() {
            Some(value) if reader.rest.trim().is_empty() => value,
            _ => Value::Atom(text.split_whitespace().collect::<Vec<_>>().join(" ")),
        }
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Value::Set(it) | Value::Sequence(it) if it.is_empty())
    }

    /// The differences from `self` to `new`, each a line that begins with where it is: `at` is the
    /// name of the whole.
    pub(super) fn changes(&self, at: &str, new: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        self.compare(at, new, &mut lines);
        lines
    }

    /// The keys of a function whose values differ in `new`; none for anything else.
    pub(super) fn changed_keys<'a>(&'a self, new: &'a Value) -> Vec<String> {
        let entries = |value: &'a Value| -> Vec<(String, &'a Value)> {
            match value {
                Value::Function(it) => it.iter().map(|(k, v)| (k.to_string(), v)).collect(),
                Value::Sequence(it) => {
                    it.iter().enumerate().map(|(at, v)| ((at + 1).to_string(), v)).collect()
                }
                _ => Vec::new(),
            }
        };
        let (old, new) = (entries(self), entries(new));
        let differs =
            |(key, value): &&(String, &Value)| !old.iter().any(|(k, v)| k == key && v == value);
        new.iter().filter(differs).map(|(key, _)| key.clone()).collect()
    }

    fn compare(&self, at: &str, new: &Value, lines: &mut Vec<String>) {
        match (self, new) {
            (old, new) if old == new => {}
            (Value::Set(old), Value::Set(new)) => {
                let without = |these: &[Value], those: &[Value]| -> Vec<String> {
                    these.iter().filter(|it| !those.contains(it)).map(Value::to_string).collect()
                };
                let (gone, added) = (without(old, new), without(new, old));
                if !gone.is_empty() {
                    lines.push(format!("{at} loses {}", gone.join(", ")));
                }
                if !added.is_empty() {
                    lines.push(format!("{at} gains {}", added.join(", ")));
                }
            }
            (Value::Sequence(old), Value::Sequence(new)) if new.starts_with(old) => {
                lines.push(format!("{at} gains at its end {}", list(&new[old.len()..])));
            }
            (Value::Sequence(old), Value::Sequence(new)) if old.len() == new.len() => {
                for (index, (old, new)) in old.iter().zip(new).enumerate() {
                    old.compare(&format!("{at}[{}]", index + 1), new, lines);
                }
            }
            (Value::Record(old), Value::Record(new)) if same_keys(old, new) => {
                for ((name, old), (_, new)) in old.iter().zip(new) {
                    old.compare(&format!("{at}.{name}"), new, lines);
                }
            }
            (Value::Function(old), Value::Function(new)) if same_keys(old, new) => {
                for ((key, old), (_, new)) in old.iter().zip(new) {
                    old.compare(&format!("{at}[{key}]"), new, lines);
                }
            }
            (old, new) => lines.push(format!("{at}: {old} -> {new}")),
        }
    }
}

fn same_keys<K: PartialEq, V>(old: &[(K, V)], new: &[(K, V)]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|((a, _), (b, _))| a == b)
}

fn list(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Atom(text) => formatter.write_str(text),
            Value::Set(values) => write!(formatter, "{{{}}}", list(values)),
            Value::Sequence(values) => write!(formatter, "<<{}>>", list(values)),
            Value::Record(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                write!(formatter, "[{}]", fields.join(", "))
            }
            Value::Function(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|(key, value)| format!("{key} -> {value}")).collect();
                write!(formatter, "({})", entries.join(", "))
            }
        }
    }
}

/// Reads from the front of a text.
struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Skips `token` if it comes next, after blanks.
    fn takes(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        true
    }

    fn value(&mut self) -> Option<Value> {
        if self.takes("<<") {
            return self.until(">>").map(Value::Sequence);
        }
        if self.takes("{") {
            return self.until("}").map(Value::Set);
        }
        if self.takes("[") {
            return self.record();
        }
        if self.takes("(") {
            return self.function();
        }
        self.atom().map(Value::Atom)
    }

    /// Values between commas, up to `end`.
    fn until(&mut self, end: &str) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        if self.takes(end) {
            return Some(values);
        }
        loop {
            values.push(self.value()?);
            if self.takes(end) {
                return Some(values);
            }
            if !self.takes(",") {
                return None;
            }
        }
    }

    fn record(&mut self) -> Option<Value> {
        let mut fields = Vec::new();
        loop {
            let name = self.atom()?;
            if !self.takes("|->") {
                return None;
            }
            fields.push((name, self.value()?));
            if self.takes("]") {
                return Some(Value::Record(fields));
            }
            if !self.takes(",") {
                return None;
            }
        }
    }

    fn function(&mut self) -> Option<Value> {
        let mut entries = Vec::new();
        loop {
            let key = self.value()?;
            if !self.takes(":>") {
                return None;
            }
            entries.push((key, self.value()?));
            if self.takes(")") {
                return Some(Value::Function(entries));
            }
            if !self.takes("@@") {
                return None;
            }
        }
    }

    /// A string with its quotes, or letters, digits, `_`, `-`.
    fn atom(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let length = if let Some(inside) = self.rest.strip_prefix('"') {
            inside.find('"')? + 2
        } else {
            let is_part = |it: char| it.is_alphanumeric() || it == '_' || it == '-';
            self.rest.find(|it| !is_part(it)).unwrap_or(self.rest.len())
        };
        if length == 0 {
            return None;
        }
        let (atom, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(atom.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    /// Goal: every form that TLC prints is read, also over several lines, and said again shortly.
    #[test]
    fn values_are_read() {
        let cases = [
            ("3", "3"),
            ("-1", "-1"),
            ("{}", "{}"),
            ("<<>>", "<<>>"),
            ("{ [ sib |-> {a1},\n    n |-> 2 ] }", "{[sib: {a1}, n: 2]}"),
            ("( r1 :>\n <<1, \"x y\">> @@\n  r2 :> TRUE )", "(r1 -> <<1, \"x y\">>, r2 -> TRUE)"),
        ];
        for (text, said) in cases {
            assert_eq!(Value::parse(text).to_string(), said);
            assert!(text.len() < 3 || !matches!(Value::parse(text), Value::Atom(_)), "{text}");
        }
        // Goal: what has no known form is not lost.
        for text in ["1..3", "[a |-> ", "{1, 2", "a = b"] {
            assert_eq!(Value::parse(text), Value::Atom(text.trim().to_owned()));
        }
    }

    /// Goal: a change is named by its innermost place, a set by what it gains and loses.
    #[test]
    fn changes_are_named_by_their_place() {
        let changes = |old: &str, new: &str| Value::parse(old).changes("x", &Value::parse(new));
        assert_eq!(changes("{1, 2}", "{2, 3}"), ["x loses 1", "x gains 3"]);
        assert_eq!(changes("(a :> 1 @@ b :> {})", "(a :> 1 @@ b :> {2})"), ["x[b] gains 2"]);
        assert_eq!(changes("[p |-> 1, q |-> 2]", "[p |-> 1, q |-> 5]"), ["x.q: 2 -> 5"]);
        assert_eq!(changes("<<1>>", "<<1, 2>>"), ["x gains at its end 2"]);
        assert_eq!(changes("<<1, 2>>", "<<1, 3>>"), ["x[2]: 2 -> 3"]);
        assert_eq!(changes("<<1, 2>>", "<<2>>"), ["x: <<1, 2>> -> <<2>>"]);
        assert_eq!(changes("{1}", "{1}"), [""; 0]);
        let (old, new) = ("(a :> 1 @@ b :> 2)", "(a :> 1 @@ b :> 3)");
        assert_eq!(Value::parse(old).changed_keys(&Value::parse(new)), ["b"]);
    }
}
