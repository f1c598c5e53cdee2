"use strict";
// The console, and the page of the exercises, stand still without a script until they are loaded again. With it, what has changed is put
// in place: what has not is left alone, so that nothing is closed, scrolled, unfocused or read aloud for no reason.
(() => {
  let busy = false, again = false, still = false;
  const same = (a, b) => a.id || b.id ? a.nodeName === b.nodeName && a.id === b.id : a.isEqualNode(b);
  const dress = (old, fresh) => {
    const kept = (name) => old.nodeName === "DETAILS" && name === "open"; // who reads it has opened or closed it
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !kept(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value && !kept(name)) old.setAttribute(name, value);
  };
  const merge = (old, fresh) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    // What counts down does so by itself.
    const until = old.hasAttribute("data-until") && old.getAttribute("datetime") === fresh.getAttribute("datetime");
    dress(old, fresh);
    if (until) return;
    const next = [...fresh.childNodes];
    let at = old.firstChild;
    next.forEach((node, i) => {
      const element = node.nodeType === Node.ELEMENT_NODE; // a text is not looked for: the spaces between elements are all the same
      let match = element ? at : null;
      while (match && !same(match, node)) match = match.nextSibling;
      if (match) while (at !== match) { const gone = at; at = at.nextSibling; gone.remove(); }
      const wanted = at && at.nodeType === Node.ELEMENT_NODE && next.slice(i + 1).some((n) => same(at, n));
      if (at && (match || !wanted && at.nodeName === node.nodeName && at.id === node.id)) {
        merge(at, node);
        at = at.nextSibling;
      } else old.insertBefore(node, at);
    });
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  };
  const seen = new WeakMap(); // what the server sent last for a part
  const markOf = (e) => {
    const link = e.getAttribute("href");
    if (e.id) return "#" + CSS.escape(e.id);
    if (e.nodeName === "SUMMARY") return e.parentElement.id ? `#${CSS.escape(e.parentElement.id)} > summary` : "";
    return e.value ? `[value="${CSS.escape(e.value)}"]` : link ? `a[href="${CSS.escape(link)}"]` : "";
  };
  const put = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      const sent = part.innerHTML;
      if (!old || (seen.get(old) ?? old.innerHTML) === sent) continue;
      seen.set(old, sent);
      const at = document.activeElement, mark = old.contains(at) && markOf(at);
      merge(old, part);
      if (mark && !old.contains(document.activeElement)) {
        const now = old.querySelector(mark);
        if (now) now.focus({ preventScroll: true });
      }
    }
    count();
  };
  for (const part of document.querySelectorAll("[data-live]")) seen.set(part, part.innerHTML);
  const look = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) put(await answer.text());
    } catch { /* the service is away: the stream tells when it is back */ } finally {
      busy = false;
      if (again) { again = false; look(); }
    }
  };
  const count = () => {
    for (const e of document.querySelectorAll("[data-until]")) {
      const left = Math.round((Date.parse(e.dateTime) - Date.now()) / 1000);
      e.textContent = left < 0 ? "ended" : left < 120 ? `in ${left} s` : `in ${Math.floor(left / 60)} min ${left % 60} s`;
    }
  };
  const trouble = document.getElementById("trouble");
  const complain = (title, words) => {
    trouble.replaceChildren(Object.assign(document.createElement("strong"), { textContent: title }), " " + words);
    trouble.classList.add("banner", "bad");
  };
  const calm = () => { trouble.replaceChildren(); trouble.classList.remove("banner", "bad"); };
  document.addEventListener("submit", async (e) => {
    const form = e.target;
    if (!form.matches("[data-quiet]")) return;
    e.preventDefault();
    calm();
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, e.submitter)) });
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) { look(); return; }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      complain(
        page.querySelector("h1")?.textContent ?? `Refused (${answer.status}).`,
        page.querySelector("[data-message]")?.textContent ?? "The answer says no more than that.",
      );
    } catch {
      complain(
        "No answer.",
        "The learning system could not be reached, so it is unknown whether it heard. " +
          "Look at “What was asked for” before you ask again.",
      );
    }
  });
  const clocks = () => { if (!still) count(); };
  const news = new EventSource("/console/events");
  const heard = () => { if (!still) look(); };
  news.addEventListener("changed", heard);
  news.addEventListener("open", heard);
  const pause = document.getElementById("still");
  pause.hidden = false;
  pause.addEventListener("click", () => {
    still = !still;
    if (still) again = false; // what was to be looked at next, too, waits
    pause.setAttribute("aria-pressed", String(still));
    heard();
  });
  setInterval(clocks, 1000);
  count();
})();
