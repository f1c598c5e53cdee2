"use strict";
// The console without a script is a page that loads itself again. With it, what has changed is put in place.
(() => {
  let busy = false, again = false;
  const seen = new WeakMap(); // what the server sent last for a part: a button that has not changed stays the same button
  const put = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      const sent = part.innerHTML;
      if (!old || (seen.get(old) ?? old.innerHTML) === sent) continue;
      seen.set(old, sent);
      const open = [...old.querySelectorAll("details")].map((d) => d.open);
      const at = document.activeElement, link = at.getAttribute("href");
      const mark = old.contains(at) && (at.id ? "#" + CSS.escape(at.id) : at.value ? `[value="${CSS.escape(at.value)}"]` : link ? `a[href="${CSS.escape(link)}"]` : "");
      old.replaceChildren(...part.childNodes);
      old.querySelectorAll("details").forEach((d, i) => { if (i < open.length) d.open = open[i]; });
      if (mark) { const now = old.querySelector(mark); if (now) now.focus({ preventScroll: true }); }
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
  document.addEventListener("submit", async (e) => {
    const form = e.target;
    if (!form.matches("[data-quiet]")) return;
    e.preventDefault();
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form, e.submitter)) });
    if (answer.ok) look(); else location.reload();
  });
  const news = new EventSource("/console/events");
  news.addEventListener("changed", look);
  news.addEventListener("open", look);
  setInterval(count, 1000);
  count();
})();
