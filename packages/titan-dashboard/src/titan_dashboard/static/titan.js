// What pages do beyond what the server has made: they stay current, count, and hear keys.
// Every page works without this file.
import { morph } from "./morph.js";
import { follow } from "./live.js";

const $ = (selector, root = document) => root.querySelector(selector);

// -- times: the server writes UTC; people read how long ago, with the exact time in a tooltip ------
const DAY = 86_400_000;
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const full = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "long" });

export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.floor(ms / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60);
  const two = (n) => String(n).padStart(2, "0");
  if (h < 1) return `${m}m ${two(s % 60)}s`;
  if (h < 24) return `${h}h ${two(m % 60)}m`;
  return `${Math.floor(h / 24)}d ${two(h % 24)}h`;
}

function ago(ms) {
  const past = Date.now() - ms;
  if (past < 5_000) return "just now";
  if (past < 60_000) return `${Math.floor(past / 1000)} s ago`;
  if (past < 3_600_000) return `${Math.floor(past / 60_000)} min ago`;
  if (past < DAY) return `${Math.floor(past / 3_600_000)} h ago`;
  return clock.format(ms) + ", " + new Date(ms).toLocaleDateString();
}

function tick() {
  for (const one of document.querySelectorAll("time[data-at]")) {
    const text = ago(Number(one.dataset.at));
    if (one.textContent !== text) one.textContent = text;
    if (!one.title) one.title = full.format(Number(one.dataset.at));
  }
  for (const one of document.querySelectorAll("[data-since]")) {
    const past = Date.now() - Number(one.dataset.since);
    const text = past < 60_000 ? `${Math.floor(Math.max(0, past) / 1000)} s` : duration(past);
    if (one.textContent !== text) one.textContent = text;
  }
}
tick();
setInterval(tick, 500);

// -- theme -----------------------------------------------------------------------------------------
const THEMES = { system: ["light", "◐"], light: ["dark", "○"], dark: ["system", "●"] };
const themeButton = $("[data-theme-button]");
themeButton?.form.addEventListener("submit", (event) => {
  event.preventDefault();
  const theme = themeButton.value;
  const [following, sign] = THEMES[theme];
  document.documentElement.dataset.theme = theme;
  document.cookie = `titan_theme=${theme}; path=/; max-age=31536000; samesite=strict`;
  themeButton.value = following;
  themeButton.title = `Theme: ${theme}`;
  themeButton.setAttribute("aria-label", `Theme: ${theme}. Change to ${following}`);
  themeButton.firstElementChild.textContent = sign;
});

// A form that does something is sent once, and shows that it is under way.
for (const form of document.querySelectorAll("form[data-once]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.once === "sent") event.preventDefault();
    form.dataset.once = "sent";
    const button = form.querySelector("button");
    setTimeout(() => ((button.disabled = true), (button.textContent += "…")));
  });
}
addEventListener("pageshow", (event) => event.persisted && location.reload());

// -- live ------------------------------------------------------------------------------------------
const mark = $("#live"), banner = $("#banner");
let lostSince = 0;

function say(state, text, trouble = "") {
  mark.hidden = false;
  mark.className = `live is-${state}`;
  if (mark.textContent !== text) mark.textContent = text;
  banner.hidden = !trouble;
  if (banner.textContent !== trouble) banner.textContent = trouble;
}

function put(part, html) {
  const place = document.querySelector(`[data-live="${CSS.escape(part)}"]`);
  if (!place) {
    document.dispatchEvent(new CustomEvent("titan:part", { detail: { part, html } }));
    return;
  }
  morph(place, html);
  tick();
  const title = place.querySelector("[data-title]");
  if (title) document.title = `${title.dataset.title} · Titan`;
  document.dispatchEvent(new CustomEvent("titan:changed", { detail: { part } }));
}

const page = document.body.dataset.page;
if (page) {
  let away = false;
  follow(page, {
    open() {
      lostSince = 0;
      if (!away) say("live", "live");
    },
    lost() {
      lostSince ||= Date.now();
      say("away", "reconnecting…", Date.now() - lostSince > 2000 ? "The dashboard does not answer: what you see is as it was. Reconnecting…" : "");
    },
    signedOut() {
      say("away", "signed out", "You are signed out. ");
      const link = document.createElement("a");
      link.href = `/sign-in?next=${encodeURIComponent(page)}`;
      link.textContent = "Sign in";
      banner.append(link);
    },
    master(trouble) {
      away = Boolean(trouble);
      if (away) say("away", `stale since ${clock.format(Date.now())}`, `The master does not answer: what you see is as it was. Reconnecting… (${trouble})`);
      else say("live", "live");
    },
    fragment: put,
    reload: () => location.reload(),
  });
} else if ($('[data-error="AWAY"]')) {
  // The page could not be made at all: look again, gently, until it can.
  setInterval(async () => {
    const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    if (answer && answer.status !== 503) location.reload();
  }, 2000);
}

// -- keys ------------------------------------------------------------------------------------------
let before = "";
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = before === "g" ? `g ${event.key}` : event.key;
  before = event.key === "g" ? "g" : "";
  const link = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key);
  if (link) {
    event.preventDefault();
    link.tagName === "INPUT" ? link.focus() : link.click();
  } else if (key === "t") {
    themeButton?.form.requestSubmit(themeButton);
  } else if (key === "j" || key === "k") {
    const rows = [...document.querySelectorAll("main .rowlink, main tbody td a, main .lane .name a, main .grow .name a, main .node")];
    const at = rows.indexOf(document.activeElement);
    rows[Math.max(0, Math.min(rows.length - 1, at + (key === "j" ? 1 : -1)))]?.focus();
    event.preventDefault();
  } else if (key === "?") {
    showKeys();
  }
});

function showKeys() {
  let dialog = $("#keys");
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.id = "keys";
    const rows = [["?", "these keys"], ["t", "theme"], ["j k", "next and previous row"], ["Esc", "close, leave a field"]];
    for (const one of document.querySelectorAll("[data-key]")) rows.push([one.dataset.key, one.dataset.keyName || one.textContent.trim()]);
    const title = document.createElement("h2");
    title.textContent = "Keys";
    const list = document.createElement("dl");
    for (const [key, what] of rows) {
      const term = document.createElement("dt"), kbd = document.createElement("kbd"), text = document.createElement("dd");
      kbd.textContent = key;
      text.textContent = what;
      term.append(kbd);
      list.append(term, text);
    }
    const form = document.createElement("form");
    form.method = "dialog";
    const close = document.createElement("button");
    close.textContent = "Close";
    form.append(close);
    dialog.append(title, list, form);
    document.body.append(dialog);
  }
  dialog.open ? dialog.close() : dialog.showModal();
}
