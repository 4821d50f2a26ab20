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

  // --- what a page holds that must not be lost: what was typed, and what is shown only once ------------------------
  const TYPED = "input:not([type=hidden]), select, textarea";
  const is_typed = (field) =>
    field.matches("[type=checkbox], [type=radio]")
      ? field.checked !== field.defaultChecked
      : field.tagName === "SELECT"
        ? [...field.options].some((option) => option.selected !== option.defaultSelected && $$("[selected]", field).length)
        : field.value !== field.defaultValue;
  const typed = () => $$(TYPED, $("main") || document).filter((field) => field.name && field.type !== "search" && is_typed(field));
  const holds = () => typed().length > 0 || $("#command, #secret, #output") !== null;

  let is_leaving = false;
  addEventListener("beforeunload", () => {
    is_leaving = true;
    setTimeout(() => (is_leaving = false), 5000); // a download leaves nowhere
  });
  // Go there, or say so and leave the moment to the reader, whose work would be lost.
  const leave = (address, text, word) => {
    if (is_leaving) return;
    if (!holds()) return address ? location.assign(address) : location.reload();
    const note = $("#left");
    $("span", note).textContent = text;
    $("a", note).textContent = word;
    $("a", note).href = address || location.href;
    note.hidden = false;
  };
  // The browser missed more than the hub remembers, or what it shows is gone.
  document.addEventListener("reload", () => leave("", "Something changed that this page does not show yet.", "Load it again"));
  // Nobody may see this page any more: the hub leads to sign-in and back, or says what is left.
  document.addEventListener("ended", () => {
    const here = location.pathname + location.search;
    leave(`/sign-in?next=${encodeURIComponent(here)}`, "Your session has ended; what you typed can still be sent, after you signed in.", "Sign in");
  });

  // What was typed survives a reload, passwords aside; a form that was sent has nothing left to survive.
  const draft = `daalu-draft ${location.pathname}`;
  addEventListener("pagehide", () => {
    const fields = typed().filter((field) => field.type !== "password" && field.id && !is_sent.has(field.form));
    if (!fields.length) return sessionStorage.removeItem(draft);
    const values = fields.map((field) => [field.id, field.type === "checkbox" ? field.checked : field.value]);
    sessionStorage.setItem(draft, JSON.stringify(values));
  });
  const is_sent = new WeakSet();
  const [arrival] = performance.getEntriesByType("navigation");
  if (arrival && arrival.type !== "navigate") {
    for (const [id, value] of JSON.parse(sessionStorage.getItem(draft) || "[]")) {
      const field = document.getElementById(id);
      if (field && field.type === "checkbox") field.checked = value;
      else if (field && field.matches(TYPED)) field.value = value;
    }
  }
  sessionStorage.removeItem(draft);

  // --- the stream: it beats every five seconds, and whoever hears nothing for three beats is told ------------------
  const QUIET = 16000, STREAM = "[hx-sse\\:connect]";
  let heard = performance.now(), tried = 0, connection = null, lost_timer = 0;
  const lost = (is) => {
    const note = $("#lost");
    if (!note) return;
    clearTimeout(lost_timer);
    if (!is) note.hidden = true;
    else if (note.hidden) {
      $("time", note).dateTime = new Date(Date.now() + skew - (performance.now() - heard)).toISOString();
      const show = () => {
        note.hidden = false;
        tick();
      };
      lost_timer = setTimeout(show, is === "quiet" ? 0 : 2000); // a stream that is back within two seconds is no news
    }
  };
  const hear = () => {
    heard = performance.now();
    lost(false);
  };
  document.addEventListener("htmx:sse:error", () => lost(true));
  document.addEventListener("htmx:sse:before:connection", (event) => event.detail.connection.attempt > 0 && lost(true));
  document.addEventListener("htmx:sse:before:message", hear);
  document.addEventListener("htmx:sse:after:connection", (event) => {
    connection = event.detail.connection;
    hear();
  });
  document.addEventListener("visibilitychange", () => (heard = performance.now())); // hidden pages hear nothing
  setInterval(() => {
    const stream = $(STREAM), now = performance.now();
    if (!stream || document.hidden || now - heard < QUIET) return;
    lost("quiet");
    if (now - tried < QUIET) return;
    tried = now;
    if (connection?.reader) connection.reader.cancel(); // it connects again
    else if (!stream._htmx?.sse) htmx.ajax("GET", stream.getAttribute("hx-sse:connect"), { source: stream, timeout: QUIET });
  }, 1000);

  // --- requests of this page: what is waited for, and what failed --------------------------------------------------
  const fail = (text) => {
    const note = document.createElement("div"), words = document.createElement("p");
    note.className = "note bad";
    words.textContent = text;
    note.append(words);
    $("#failed").replaceChildren(note);
  };
  const is_stream = (element) => !element || element.matches(STREAM);
  const UNKNOWN = "The hub does not answer: whether that was done is not known. What you typed is still here: try again in a moment.";
  let waiting_timer = 0;
  document.addEventListener("htmx:before:request", (event) => {
    if (is_stream(event.detail.ctx.sourceElement)) return;
    $("#failed").replaceChildren();
    const since = new Date(Date.now() + skew).toISOString();
    clearTimeout(waiting_timer);
    waiting_timer = setTimeout(() => {
      $("#waits time").dateTime = since;
      $("#waits").hidden = false;
      tick();
    }, 2000);
  });
  document.addEventListener("htmx:finally:request", (event) => {
    if (is_stream(event.detail.ctx.sourceElement)) return;
    clearTimeout(waiting_timer);
    $("#waits").hidden = true;
  });
  document.addEventListener("htmx:error", (event) => {
    const context = event.detail.ctx;
    if (!context || is_stream(context.sourceElement)) return;
    fail(context.request.method === "GET" ? "The hub does not answer: what is shown is not what you asked for. Try again in a moment." : UNKNOWN);
  });
  // The session is gone: the form is sent once more without htmx, and the hub answers with a page that keeps it.
  document.addEventListener("htmx:before:response", (event) => {
    const { sourceElement, response } = event.detail.ctx;
    if (response.status !== 401 || response.raw.headers.has("HX-Redirect") || sourceElement.tagName !== "FORM") return;
    event.preventDefault();
    HTMLFormElement.prototype.submit.call(sourceElement);
  });
  // A second click on its way changes nothing.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post" || form.hasAttribute("hx-post") || form.dataset.download) return;
    if (is_sent.has(form)) return event.preventDefault();
    is_sent.add(form);
    setTimeout(() => is_sent.delete(form), 10000);
  });
  // A file comes without a new page: save it, then show the page that has its row.
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.dataset.download) return;
    event.preventDefault();
    const button = $("button:not([type=button])", form);
    if (button.disabled) return;
    button.disabled = true;
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") || "");
      if (!name) return HTMLFormElement.prototype.submit.call(form); // a refusal is a page
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await answer.blob());
      link.download = name[1];
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      form.reset();
      location.assign(form.dataset.download);
    } catch {
      fail(UNKNOWN);
    } finally {
      button.disabled = false;
    }
  });

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
