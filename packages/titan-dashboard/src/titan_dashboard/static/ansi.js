// Colours of a line of a log, and nothing else that it may ask for: what moves a cursor, sets a title, opens a
// link or rings is left out. Text only ever becomes text.
const OTHER = /\x1b(?:\[[0-?]*[ -\/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|.)?/g;
const COLOR = /\x1b\[([0-9;]*)m/g;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g;
// Marks that turn the reading direction can make a line look like another one.
const TURNING = /[\u202a-\u202e\u2066-\u2069]/g;

export function plain(text) {
  return overwritten(text).replace(OTHER, "").replace(CONTROL, "").replace(TURNING, "");
}

// "10%\r20%\r30%": a terminal shows what was written last.
function overwritten(text) {
  return text.includes("\r") ? text.split("\r").filter(Boolean).at(-1) ?? "" : text;
}

function visible(text) {
  return text.replace(OTHER, "").replace(TURNING, "").replace(CONTROL, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

// [[text, classes, colour], …]: 16 colours are classes, so that themes can choose them.
export function spans(text) {
  text = overwritten(text);
  if (!text.includes("\x1b")) return [[visible(text), "", ""]];
  const found = [];
  let style = fresh(), from = 0;
  const add = (piece) => {
    const shown = visible(piece);
    if (shown) found.push([shown, classes(style), style.rgb]);
  };
  for (const match of text.matchAll(COLOR)) {
    add(text.slice(from, match.index));
    style = after(style, match[1]);
    from = match.index + match[0].length;
  }
  add(text.slice(from));
  return found;
}

const fresh = () => ({ fg: -1, bold: false, dim: false, italic: false, under: false, rgb: "" });

function classes(s) {
  return [s.fg >= 0 && `a-${s.fg}`, s.bold && "a-bold", s.dim && "a-dim", s.italic && "a-italic", s.under && "a-under"].filter(Boolean).join(" ");
}

function after(style, codes) {
  let s = { ...style };
  const list = codes ? codes.split(";").map(Number) : [0];
  for (let i = 0; i < list.length; i++) {
    const code = list[i];
    if (code === 0) s = fresh();
    else if (code === 1) s.bold = true;
    else if (code === 2) s.dim = true;
    else if (code === 3) s.italic = true;
    else if (code === 4) s.under = true;
    else if (code === 22) s.bold = s.dim = false;
    else if (code === 23) s.italic = false;
    else if (code === 24) s.under = false;
    else if (code >= 30 && code <= 37) (s.fg = code - 30), (s.rgb = "");
    else if (code >= 90 && code <= 97) (s.fg = code - 82), (s.rgb = "");
    else if (code === 39) (s.fg = -1), (s.rgb = "");
    else if (code === 38 || code === 48) {
      const isText = code === 38;
      if (list[i + 1] === 5) {
        if (isText) indexed(s, list[i + 2]);
        i += 2;
      } else if (list[i + 1] === 2) {
        if (isText) direct(s, list.slice(i + 2, i + 5));
        i += 4;
      }
    }
  }
  return s;
}

function indexed(s, n) {
  if (!(n >= 0 && n <= 255)) return;
  if (n < 16) (s.fg = n), (s.rgb = "");
  else if (n >= 232) direct(s, Array(3).fill(8 + 10 * (n - 232)));
  else direct(s, [36, 6, 1].map((d) => [0, 95, 135, 175, 215, 255][Math.floor((n - 16) / d) % 6]));
}

function direct(s, rgb) {
  if (rgb.length === 3 && rgb.every((n) => n >= 0 && n <= 255)) (s.fg = -1), (s.rgb = `rgb(${rgb.join(" ")})`);
}
