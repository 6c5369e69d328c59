// Keeps what is under way up to date: takes over the live part of the page as it is now.
"use strict";

const EVERY = 1000; // milliseconds

async function refresh() {
  const shown = document.querySelector("[data-live=on]");
  if (!shown) return;
  try {
    const answer = await fetch(location.href);
    if (answer.redirected) return location.reload(); // signed out
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("[data-live]");
    if (answer.ok && fresh) shown.replaceWith(fresh);
  } catch {
    // The console does not answer; perhaps it does the next time.
  }
  setTimeout(refresh, EVERY);
}

setTimeout(refresh, EVERY);
