//! The language of drun scripts: bytes in, commands with line numbers out. Knows no files and runs nothing.

use std::fmt;
use std::path::PathBuf;

use execution::Principal;

/// Longest script that is read, bytes.
pub const SCRIPT_BYTES_MAX: usize = 64 << 20;

const COMMANDS: [&str; 6] = ["create", "install", "reinstall", "upgrade", "ingress", "query"];

/// A parsed script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Whether the line `# APPLICATION-SUBNET` occurs.
    pub application_subnet: bool,
    /// Commands in order.
    pub lines: Vec<Line>,
}

/// A command and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Line number, from 1.
    pub number: usize,
    /// The command.
    pub command: Command,
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `create`
    Create,
    /// `install`, `reinstall` or `upgrade`
    Install {
        /// Which of the three.
        mode: InstallMode,
        /// The canister.
        canister: Principal,
        /// Path of the module as written, relative to the script.
        module: PathBuf,
        /// Argument of `canister_init` or `canister_post_upgrade`.
        arg: Vec<u8>,
    },
    /// `ingress`
    Ingress(Call),
    /// `query`
    Query(Call),
}

/// Receiver, method and argument of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The canister, or `aaaaa-aa`.
    pub canister: Principal,
    /// Method name.
    pub method: String,
    /// Argument.
    pub arg: Vec<u8>,
}

/// How a module is put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallMode {
    /// Into an empty canister.
    Install,
    /// Over whatever is there.
    Reinstall,
    /// Keeping what an upgrade keeps.
    Upgrade,
}

/// Why a script can't be run, and the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for SyntaxError {}

impl Script {
    /// Parses a whole script; the first fault ends it.
    ///
    /// # Errors
    /// The line, what is wrong there and what was expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, SyntaxError> {
        let mut script = Self { application_subnet: false, lines: Vec::new() };
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let number = index + 1;
            let line = line.trim_ascii();
            if let Some(comment) = line.strip_prefix(b"#") {
                script.application_subnet |= comment.trim_ascii() == b"APPLICATION-SUBNET";
            } else if !line.is_empty() {
                let command = parse_command(line).map_err(|what| SyntaxError { line: number, what })?;
                script.lines.push(Line { number, command });
            }
        }
        Ok(script)
    }
}

fn parse_command(line: &[u8]) -> Result<Command, String> {
    let mut rest = line;
    let word = String::from_utf8_lossy(next_token(&mut rest)).into_owned();
    match word.as_str() {
        "create" if rest.is_empty() => Ok(Command::Create),
        "create" => Err("`create` takes no arguments".into()),
        "install" => parse_install(InstallMode::Install, rest),
        "reinstall" => parse_install(InstallMode::Reinstall, rest),
        "upgrade" => parse_install(InstallMode::Upgrade, rest),
        "ingress" => Ok(Command::Ingress(parse_call("ingress", rest)?)),
        "query" => Ok(Command::Query(parse_call("query", rest)?)),
        _ => Err(unknown_command(&word)),
    }
}

fn unknown_command(word: &str) -> String {
    let near = COMMANDS
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, word), known))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let shown: String = word.chars().take(40).collect();
    let expected = "expected create, install, reinstall, upgrade, ingress or query";
    match near {
        Some((_, known)) => format!("unknown command `{shown}`; did you mean `{known}`?"),
        None => format!("unknown command `{shown}`; {expected}"),
    }
}

fn parse_install(mode: InstallMode, mut rest: &[u8]) -> Result<Command, String> {
    use std::os::unix::ffi::OsStrExt;

    let form = match mode {
        InstallMode::Install => "install ID MODULE ARG",
        InstallMode::Reinstall => "reinstall ID MODULE ARG",
        InstallMode::Upgrade => "upgrade ID MODULE ARG",
    };
    let canister = parse_canister(next_token(&mut rest), form)?;
    let module = next_token(&mut rest);
    if module.is_empty() {
        return Err(format!("the module is missing; expected `{form}`"));
    }
    let module = PathBuf::from(std::ffi::OsStr::from_bytes(module));
    Ok(Command::Install { mode, canister, module, arg: parse_arg(rest, form)? })
}

fn parse_call(word: &str, mut rest: &[u8]) -> Result<Call, String> {
    let form = format!("{word} ID METHOD ARG");
    let canister = parse_canister(next_token(&mut rest), &form)?;
    let method = next_token(&mut rest);
    if method.is_empty() {
        return Err(format!("the method name is missing; expected `{form}`"));
    }
    let method = std::str::from_utf8(method).map_err(|_| "the method name isn't UTF-8")?.to_owned();
    Ok(Call { canister, method, arg: parse_arg(rest, &form)? })
}

fn parse_canister(token: &[u8], form: &str) -> Result<Principal, String> {
    if token.is_empty() {
        return Err(format!("the canister id is missing; expected `{form}`"));
    }
    let text = String::from_utf8_lossy(token);
    Principal::from_text(text.as_ref()).map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        format!("`{shown}` is no canister id: {error}")
    })
}

/// The next word, with the blanks after it taken off `rest`.
fn next_token<'line>(rest: &mut &'line [u8]) -> &'line [u8] {
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let (token, tail) = rest.split_at(end);
    *rest = tail.trim_ascii_start();
    token
}

fn parse_arg(text: &[u8], form: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        Err(format!("the argument is missing; expected `{form}`, where no argument is `\"\"`"))
    } else if let Some(digits) = text.strip_prefix(b"0x") {
        hex::decode(digits).map_err(|error| format!("bad hexadecimal argument: {error}"))
    } else if let Some(quoted) = text.strip_prefix(b"\"") {
        parse_quoted(quoted)
    } else {
        Err("the argument is neither `0xHEX` nor a string in double quotes".into())
    }
}

/// Parses what follows an opening quote.
fn parse_quoted(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(rest.len());
    loop {
        let (&byte, tail) = rest.split_first().ok_or("the string has no closing quote")?;
        rest = tail;
        match byte {
            b'"' if rest.is_empty() => return Ok(bytes),
            b'"' => return Err("text after the closing quote; write `\\\"` for a quote in the string".into()),
            b'\\' => bytes.push(parse_escape(&mut rest)?),
            _ => bytes.push(byte),
        }
    }
}

fn parse_escape(rest: &mut &[u8]) -> Result<u8, String> {
    let (&kind, tail) = rest.split_first().ok_or("the string ends inside an escape")?;
    *rest = tail;
    match kind {
        b'x' => digits(rest, 2, 16).ok_or_else(|| "`\\x` needs two hexadecimal digits".into()),
        b'b' => digits(rest, 8, 2).ok_or_else(|| "`\\b` needs eight binary digits".into()),
        b'"' | b'\\' => Ok(kind),
        _ => Err(format!(
            "unknown escape `\\{}`; known are `\\xHH`, `\\bBBBBBBBB`, `\\\"` and `\\\\`",
            char::from(kind).escape_default()
        )),
    }
}

fn digits(rest: &mut &[u8], count: usize, radix: u32) -> Option<u8> {
    let (digits, tail) = rest.split_at_checked(count)?;
    let value = digits
        .iter()
        .try_fold(0, |value, digit| Some(value * radix + char::from(*digit).to_digit(radix)?))?;
    *rest = tail;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";

    fn arg_of(text: &str) -> Result<Vec<u8>, String> {
        arg_of_bytes(text.as_bytes())
    }

    fn arg_of_bytes(text: &[u8]) -> Result<Vec<u8>, String> {
        let mut line = format!("ingress {ID} go ").into_bytes();
        line.extend_from_slice(text);
        let script = Script::parse(&line).map_err(|error| error.what)?;
        match script.lines.into_iter().next().unwrap().command {
            Command::Ingress(call) => Ok(call.arg),
            other => panic!("not an ingress: {other:?}"),
        }
    }

    #[test]
    fn each_command_is_read() {
        let text = format!(
            "create\ninstall {ID} a.wasm \"\"\nreinstall {ID} b.wasm 0x00\nupgrade {ID} c/d.wasm \"x\"\n\
             ingress {ID} inc \"DIDL\\x00\\x00\"\nquery {ID} get 0x4449444c0000\n"
        );
        let commands: Vec<_> =
            Script::parse(text.as_bytes()).unwrap().lines.into_iter().map(|line| line.command).collect();
        let canister = Principal::from_text(ID).unwrap();
        let install = |mode, module: &str, arg: &[u8]| Command::Install {
            mode,
            canister,
            module: module.into(),
            arg: arg.to_vec(),
        };
        let call = |method: &str| Call { canister, method: method.into(), arg: b"DIDL\0\0".to_vec() };
        assert_eq!(
            commands,
            [
                Command::Create,
                install(InstallMode::Install, "a.wasm", b""),
                install(InstallMode::Reinstall, "b.wasm", &[0]),
                install(InstallMode::Upgrade, "c/d.wasm", b"x"),
                Command::Ingress(call("inc")),
                Command::Query(call("get")),
            ]
        );
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_and_counted() {
        let script = Script::parse(b"# first\n\n  \t\n#create\ncreate\r\n").unwrap();
        assert_eq!(script.lines, [Line { number: 5, command: Command::Create }]);
        assert!(!script.application_subnet);
    }

    #[test]
    fn the_subnet_line_counts_anywhere() {
        assert!(Script::parse(b"create\n# APPLICATION-SUBNET\n").unwrap().application_subnet);
        assert!(!Script::parse(b"create\n# no APPLICATION-SUBNET\n").unwrap().application_subnet);
    }

    #[test]
    fn escapes_stand_for_their_bytes() {
        assert_eq!(arg_of(r#""a\x0a\b00010001\"\\z""#).unwrap(), b"a\x0a\x11\"\\z");
        assert_eq!(arg_of(r#""\xfF\b11111111""#).unwrap(), [255, 255]);
    }

    #[test]
    fn other_bytes_stand_for_themselves() {
        assert_eq!(arg_of_bytes(b"\"\xff\xfe \t#\x00\"").unwrap(), b"\xff\xfe \t#\x00");
    }

    #[test]
    fn blanks_inside_a_string_are_kept() {
        assert_eq!(arg_of("\"  a  b  \"  ").unwrap(), b"  a  b  ");
    }

    #[test]
    fn hexadecimal_takes_both_cases_and_may_be_empty() {
        assert_eq!(arg_of("0xaBCd").unwrap(), [0xab, 0xcd]);
        assert_eq!(arg_of("0x").unwrap(), [] as [u8; 0]);
    }

    #[test]
    fn bad_arguments_are_refused() {
        for text in [
            "",
            "0x1",
            "0xzz",
            "abc",
            "\"",
            "\"abc",
            "\"a\" b",
            "\"\\x1\"",
            "\"\\xzz\"",
            "\"\\x+1\"",
            "\"\\b01\"",
            "\"\\b00000002\"",
            "\"\\n\"",
            "\"\\",
            "\"a\\\"",
            "0X00",
            "'a'",
        ] {
            assert!(arg_of(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn an_error_names_its_line_and_the_form_expected() {
        let error = Script::parse(b"create\n\ninstal x y z\n").unwrap_err();
        assert_eq!(error.to_string(), "line 3: unknown command `instal`; did you mean `install`?");
        let error = Script::parse(format!("ingress {ID}").as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "line 1: the method name is missing; expected `ingress ID METHOD ARG`");
        assert!(Script::parse(b"create now").is_err());
    }

    #[test]
    fn a_canister_id_with_a_wrong_checksum_is_refused() {
        let error = Script::parse(b"query rwlgt-iiaaa-aaaaa-aaaab-cai get \"\"").unwrap_err();
        assert!(error.what.starts_with("`rwlgt-iiaaa-aaaaa-aaaab-cai` is no canister id: "), "{error}");
    }

    #[test]
    fn the_management_canister_is_an_id() {
        let script = Script::parse(b"ingress aaaaa-aa stop_canister \"DIDL\"").unwrap();
        let Command::Ingress(call) = &script.lines[0].command else { panic!("not an ingress") };
        assert_eq!(call.canister, Principal::management_canister());
    }
}
