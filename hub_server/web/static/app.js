// What the pages do beyond plain HTML: times that tick, copy buttons, keys, and the word about a lost stream.
// Everything here is a convenience: each page works without it. No inline handlers, no eval (the CSP forbids both).
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const skew = Number(root.dataset.now) * 1000 - Date.now(); // the hub's clock against this browser's
  const $ = (selector, scope = document) => scope.querySelector(selector);
  const $$ = (selector, scope = document) => [...scope.querySelectorAll(selector)];

  // --- times: the same words as `render.age` and `render.countdown` on the server --------------------------------
  const age = (s) =>
    s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 86400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
  const clock = (s) => {
    const pad = (n) => String(n).padStart(2, "0");
    return (s >= 3600 ? `${Math.floor(s / 3600)}:` : "") + `${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
  };
  const title = (iso) => iso.slice(0, 19).replace("T", " ") + " UTC";
  const tick = () => {
    const now = Date.now() + skew;
    for (const time of $$("time[data-tick]")) {
      const past = Math.max(0, Math.floor((now - Date.parse(time.dateTime)) / 1000));
      const left = Math.max(0, Math.ceil((Date.parse(time.dateTime) - now) / 1000));
      const text = { age: () => age(past), clock: () => clock(past), until: () => clock(left), due: () => age(left) }[time.dataset.tick]();
      if (time.textContent !== text) time.textContent = text;
      if (!time.title) time.title = title(time.dateTime);
    }
  };
  tick();
  setInterval(tick, 1000);
  document.addEventListener("htmx:after:swap", tick);

  // --- what the stream says besides fragments: when each row was seen and shook hands -----------------------------
  document.addEventListener("seen", (event) => {
    for (const [id, iso] of Object.entries(JSON.parse(event.detail.data))) {
      const time = document.getElementById(id);
      if (!time || !iso || time.dateTime === iso) continue;
      time.dateTime = iso;
      time.title = title(iso);
    }
    tick();
  });
  // The browser missed more than the hub remembers, or what it shows is gone; a form on its way (a deletion) goes first.
  let is_leaving = false;
  addEventListener("beforeunload", () => {
    is_leaving = true;
    setTimeout(() => (is_leaving = false), 5000); // a download leaves nowhere
  });
  document.addEventListener("reload", () => is_leaving || location.reload());
  // Nobody may see this page any more: the hub leads to sign-in and back, or says what is left.
  document.addEventListener("ended", () => {
    if (is_leaving) return;
    const here = location.pathname + location.search;
    location.assign(`/sign-in?next=${encodeURIComponent(here)}`);
  });
  let lost_timer = 0;
  const lost = (is) => {
    const note = $("#lost");
    clearTimeout(lost_timer);
    if (!is) note.hidden = true;
    else if (note.hidden) {
      const since = new Date(Date.now() + skew).toISOString();
      lost_timer = setTimeout(() => { // a stream that is back within two seconds is no news
        $("time", note).dateTime = since;
        note.hidden = false;
        tick();
      }, 2000);
    }
  };
  document.addEventListener("htmx:sse:error", () => lost(true));
  document.addEventListener("htmx:sse:before:connection", (event) => event.detail.connection.attempt > 0 && lost(true));
  document.addEventListener("htmx:sse:after:connection", () => lost(false));

  // --- copy ---------------------------------------------------------------------------------------------------
  const say = (text) => {
    const region = $("#said");
    if (region) region.textContent = text;
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      return say("The browser does not allow copying here: select the text instead.");
    }
    const word = button.textContent;
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => (button.textContent = word), 1500);
  });

  // --- menus close on Escape and on a click elsewhere ---------------------------------------------------------------
  document.addEventListener("click", (event) => {
    for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
    const act = event.target.closest("[data-dialog]");
    if (act) document.getElementById(act.dataset.dialog).showModal();
  });

  // --- typed confirmation: the button wakes up when the name is right; without scripts the server judges ----------
  const confirmations = () => {
    for (const form of $$("form[data-confirm]")) {
      const right = $("[name=confirm_name]", form).value === form.dataset.confirm;
      $("button", form).disabled = !right;
    }
  };
  document.addEventListener("input", confirmations);
  confirmations();

  // --- keys -----------------------------------------------------------------------------------------------------
  const rows = () => $$("[data-row] a[data-open]");
  const move = (step) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))].focus();
  };
  const roving = (event) => {
    const bars = $$("[data-bar]");
    const at = bars.indexOf(document.activeElement);
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -bars.length, End: bars.length }[event.key];
    if (at < 0 || !step) return false;
    const next = bars[Math.min(bars.length - 1, Math.max(0, at + step))];
    for (const bar of bars) bar.tabIndex = bar === next ? 0 : -1;
    next.focus();
    return true;
  };
  const single = () => $$("[data-bar]").forEach((bar, i, all) => (bar.tabIndex = i === all.length - 1 ? 0 : -1));
  single();

  const history = {
    key: "daalu-kubectl",
    at: null,
    lines: () => JSON.parse(sessionStorage.getItem("daalu-kubectl") || "[]"),
    add(line) {
      if (!line) return;
      const lines = this.lines().filter((old) => old !== line);
      sessionStorage.setItem(this.key, JSON.stringify([...lines, line].slice(-50)));
      this.at = null;
    },
    step(input, by) {
      const lines = this.lines();
      const at = Math.max(0, Math.min(lines.length, (this.at ?? lines.length) + by));
      this.at = at;
      input.value = lines[at] ?? "";
    },
  };
  document.addEventListener("submit", (event) => {
    const line = $("#line", event.target);
    if (line) history.add(line.value.trim());
  });

  document.addEventListener("keydown", (event) => {
    const in_field = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select");
    if (event.key === "Escape") {
      for (const menu of $$("details.menu[open]")) {
        menu.open = false;
        $("summary", menu).focus();
      }
      if (in_field && in_field.type === "search") in_field.blur();
      return;
    }
    if (event.target.id === "line" && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      history.step(event.target, event.key === "ArrowUp" ? -1 : 1);
      return event.preventDefault();
    }
    if (event.ctrlKey || event.metaKey || event.altKey || in_field || $("dialog[open]")) return;
    if (roving(event)) return event.preventDefault();
    if (event.key === "/") {
      const search = $("input[type=search], #line");
      if (search) search.focus();
      else if ($("#find")) location.assign($("#find").href);
    } else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "?") $("#keys").showModal();
    else return;
    event.preventDefault();
  });
})();
