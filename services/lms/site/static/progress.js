// Follows the writing of a lesson. Without it the page looks again by itself.
"use strict";
for (const box of document.querySelectorAll("[data-feed]")) {
  const bar = box.querySelector("progress"), words = box.querySelector("[data-words]");
  const feed = new EventSource(box.dataset.feed);
  feed.addEventListener("writing", (e) => {
    const at = JSON.parse(e.data);
    bar.max = at.of;
    bar.value = at.seconds;
    words.textContent = at.words;
  });
  feed.addEventListener("done", () => {
    feed.close();
    location.reload();
  });
  feed.onerror = () => {
    words.textContent = "The connection is lost. Your lesson is still being written; this page goes on as soon as it can.";
  };
}
