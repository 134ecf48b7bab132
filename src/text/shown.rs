//! Whether a template shows as much around calls that stand as text as around those it writes itself.
//!
//! Nobody can tell from a rendering where its calls end: what a template shows behind calls alone
//! would be taken for a part of them, and where it shows none the next best text would be. So both
//! are rendered once more with marks in place of every content and of the calls' names, and the
//! marks are compared.

use serde_json::Value;

use super::template::Message;
use super::tools::TOOL_CALLS;

/// A reply that is to stand in a conversation as the text that the model wrote.
pub struct Written<'a> {
    pub message: usize,
    pub text: &'a str,
    pub has_calls: bool,
}

/// `mark` occurs nowhere in the conversation.
pub fn is_all_shown(
    messages: &[Message],
    replies: &[Written<'_>],
    mark: char,
    render: &dyn Fn(&[Message]) -> Option<String>,
) -> bool {
    let mut plain = messages.to_vec();
    for (index, message) in plain.iter_mut().enumerate() {
        let content = message.content.as_ref().filter(|content| !content.trim().is_empty());
        if content.is_some() && replies.iter().all(|reply| reply.message != index) {
            message.content = Some(format!("{mark}content {index}{mark}"));
        }
    }
    let mut written = plain.clone();
    let mut names = Vec::new();
    for Written { message, text, .. } in replies.iter().filter(|reply| reply.has_calls) {
        let name = format!("calls {message}");
        let calls = plain[*message].extra.get_mut(TOOL_CALLS).and_then(Value::as_array_mut);
        for (index, call) in calls.into_iter().flatten().enumerate() {
            let own = format!("{name}.{index}");
            call["function"]["name"] = format!("{mark}{own}{mark}").into();
            names.push(own);
        }
        written[*message] = written[*message].written(format!("{text}{mark}{name}{mark}"));
    }
    for Written { message, text, .. } in replies.iter().filter(|reply| !reply.has_calls) {
        written[*message] = written[*message].written((*text).to_owned());
    }
    let (Some(plain), Some(written)) = (render(&plain), render(&written)) else { return false };
    let shown = marked(&plain, mark);
    let has_all = names.iter().all(|name| shown.contains(&name.as_str()));
    // Of the calls of one reply it matters where they are and that they are all there.
    let whole = |name: &'_ str| match name.starts_with("calls") {
        true => name.split('.').next().unwrap_or_default().to_owned(),
        false => name.to_owned(),
    };
    let mut shown: Vec<String> = shown.into_iter().map(whole).collect();
    shown.dedup();
    has_all && shown == marked(&written, mark)
}

/// What stands between marks.
fn marked(rendered: &str, mark: char) -> Vec<&str> {
    rendered.split(mark).skip(1).step_by(2).collect()
}
