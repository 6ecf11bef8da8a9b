// Makes a place look like new HTML while it keeps what need not change: focus, selection, scrolling,
// what is folded open. Elements are the same if their tag and id are.

export function morph(place, html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html; // made by our own templates, which escape; a policy forbids scripts in it
  children(place, fresh.content);
}

function same(old, made) {
  return old.nodeType === made.nodeType && old.nodeName === made.nodeName && (old.id || "") === (made.id || "");
}

function children(old, made) {
  const byId = new Map();
  for (const child of old.children) if (child.id) byId.set(child.id, child);
  let at = old.firstChild;
  for (const want of [...made.childNodes]) {
    const known = want.id ? byId.get(want.id) : undefined;
    if (known && known.nodeName === want.nodeName && known.parentNode === old) {
      if (known !== at) old.insertBefore(known, at);
      else at = at.nextSibling;
      patch(known, want);
    } else if (at && same(at, want)) {
      const next = at.nextSibling;
      patch(at, want);
      at = next;
    } else {
      old.insertBefore(want, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function patch(old, made) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== made.nodeValue) old.nodeValue = made.nodeValue;
    return;
  }
  const isTime = old.dataset?.at !== undefined || old.dataset?.since !== undefined;
  const isSameTime = isTime && old.dataset.at === made.dataset?.at && old.dataset.since === made.dataset?.since;
  for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) {
    if (!made.hasAttribute(name) && !(name === "open" && old.tagName === "DETAILS") && !(name === "title" && isTime)) old.removeAttribute(name);
  }
  if (!isSameTime) children(old, made); // what the script counts is the script's
}
