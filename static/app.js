// What htmx does not do: when to poll, when to hold still, confirmation, selection, theme, a few keys.
// Every page works without this file.
"use strict";
(() => {
  const root = document.documentElement, live = document.getElementById("live");
  const find = (selector, from = document) => from.querySelector(selector);
  const findAll = (selector, from = document) => [...from.querySelectorAll(selector)];
  const on = (name, act, target = document) => target.addEventListener(name, act);
  root.classList.add("js");

  // --- Live: hints of the stream, or a poll every 2 s while there is none.
  const POLL = 2000, REOPEN = 10000, RELOAD = 5000;
  const hasStream = live.hasAttribute("hx-sse:connect");
  let streaming = false, paused = false, stale = false, missed = false, acting = 0;

  const picked = () => findAll('tbody input[name="id"]:checked');
  const busy = () => acting > 0 || picked().length > 0 || find("dialog[open]") !== null;
  const hint = (name) => live.dispatchEvent(new CustomEvent(name));

  const tell = () => {
    const pulse = find("#pulse"), held = paused || busy();
    if (missed && !held) { missed = false; hint("poll"); }
    const [state, text] = held ? ["paused", "Paused"] : stale ? ["stale", "No answer"] : streaming ? ["live", "Live"] : ["polling", "Live"];
    pulse.dataset.state = find("[data-region]") ? state : "off";
    pulse.hidden = !find("[data-region]");
    const button = find("#pause");
    if (button.textContent !== text) button.textContent = text;
    button.setAttribute("aria-pressed", String(paused));
  };

  on("htmx:sse:after:connection", (event) => { streaming = event.detail.connection.status === 200; tell(); });
  for (const lost of ["htmx:sse:error", "htmx:sse:close", "htmx:sse:before:connection"])
    on(lost, (event) => { if (event.detail.connection?.attempt !== 0 || lost !== "htmx:sse:before:connection") { streaming = false; tell(); } });
  setInterval(() => { if (!streaming && !document.hidden) hint("poll"); }, POLL);
  if (hasStream) setInterval(() => { if (!streaming && !document.hidden) hint("reopen"); }, REOPEN);
  on("visibilitychange", () => { if (!document.hidden && !streaming) hint("poll"); });
  if (find("[data-reload]")) setTimeout(() => location.reload(), RELOAD);

  // A page that changes under the hand of somebody who is choosing helps nobody.
  on("htmx:before:request", (event) => {
    const { sourceElement, request } = event.detail.ctx;
    if (sourceElement.matches("[data-region]") && (paused || busy())) { missed = true; event.preventDefault(); }
    else if (request.method === "POST") acting += 1;
  });
  on("htmx:before:swap", (event) => { // asked before the hand came, answered after
    const region = event.detail.ctx.sourceElement;
    if (!region?.matches("[data-region]") || !(paused || busy())) return;
    missed = true;
    if (region._htmx) region._htmx.ptag = ""; // what was not shown must not be answered with 304 the next time
    event.preventDefault();
  });
  on("htmx:finally:request", (event) => {
    const { request, hx } = event.detail.ctx;
    if (request.method === "POST" && !hx?.redirect) { acting -= 1; tell(); }
  });
  on("htmx:after:request", (event) => {
    const { sourceElement, response } = event.detail.ctx;
    if (sourceElement.matches("[data-region]")) { stale = response.status >= 500; tell(); }
  });
  on("htmx:error", (event) => { if (event.detail.ctx?.sourceElement.matches("[data-region]")) { stale = true; tell(); } });
  on("htmx:after:swap", (event) => {
    const { request, response, sourceElement } = event.detail.ctx;
    if (request?.method === "POST" && response?.status < 400) {
      for (const box of picked()) box.checked = false;
      // What a region shows now came by another way: if it becomes as it was, that must not be answered with 304.
      for (const region of findAll("[data-region]")) if (region._htmx) region._htmx.ptag = "";
      count();
    }
    if (sourceElement?.matches("[data-region]") && !stale && find("#notice .bad")) find("#notice").replaceChildren();
  });
  on("click", () => { paused = !paused; tell(); }, find("#pause"));

  // --- Confirmation: a dialog instead of the page that asks without JavaScript.
  on("htmx:confirm", (event) => {
    const { ctx, issueRequest, dropRequest } = event.detail, button = ctx.sourceEvent.submitter;
    event.preventDefault();
    if (ctx.sourceElement.id === "selection" && picked().length === 0) { say("Select jobs first: tick the boxes in front of them."); dropRequest(); return; }
    const dialog = find("#confirm"), many = picked().length;
    find("#confirm-question").textContent = many ? button.dataset.confirm.replace("the selected", many).replace("1 jobs", "1 job") : button.dataset.confirm;
    find("#confirm-hint").textContent = button.dataset.hint;
    find("#confirm-yes").textContent = button.textContent;
    find("#confirm-yes").className = button.classList.contains("danger") ? "danger" : "primary";
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => {
      button.focus();
      if (dialog.returnValue === "yes") { // the page asks again after this, not before: what it shows may be gone by then
        ctx.request.body.set("confirmed", "yes");
        issueRequest();
      } else { dropRequest(); tell(); }
    }, { once: true });
    dialog.showModal();
    tell();
  });

  const say = (text) => {
    const note = document.createElement("p");
    note.className = "notice";
    note.textContent = text;
    find("#notice").replaceChildren(note);
  };

  // --- Selection: all of a page, a range with Shift.
  const count = () => {
    const number = picked().length, note = find("#picked"), all = find("#all");
    if (note) note.textContent = number ? `· ${number} selected` : "";
    if (all) { all.checked = number > 0 && number === findAll('tbody input[name="id"]').length; all.indeterminate = number > 0 && !all.checked; }
    tell();
  };
  let last = null;
  on("click", (event) => {
    const box = event.target;
    if (box.id === "all") for (const each of findAll('tbody input[name="id"]')) each.checked = box.checked;
    else if (box.name === "id" && box.type === "checkbox") {
      const boxes = findAll('tbody input[name="id"]'), [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
      if (event.shiftKey && from >= 0) for (const each of boxes.slice(from, to + 1)) each.checked = box.checked;
      last = box;
    } else return;
    count();
  });

  // --- Copy
  on("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    try { await navigator.clipboard.writeText(source.textContent); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(source); button.textContent = "Selected: copy it"; } // plain HTTP has no clipboard
  });

  // --- Theme: as the system, light, dark. The server reads the cookie, so a page never flashes in the other one.
  const THEMES = ["system", "light", "dark"], theme = find("#theme");
  const show = (name) => { theme.textContent = `Theme: ${name}`; theme.setAttribute("aria-label", `Theme: ${name}. Change`); };
  show(root.dataset.theme || "system");
  on("click", () => {
    const name = THEMES[(THEMES.indexOf(root.dataset.theme || "system") + 1) % THEMES.length];
    if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
    document.cookie = `jobflow_theme=${name}; path=/; max-age=31536000; samesite=lax`;
    show(name);
  }, theme);

  // --- Keys, as the help sheet names them. Not while somebody types, and not for those who have switched them off.
  const help = find("#help"), wanted = find("#keys-on"), OFF = "jobflow_keys_off";
  const goes = (key) => find(`.top [data-key="${CSS.escape(key)}"]`)?.click();
  let leader = -Infinity; // when g was pressed
  const kept = (() => { try { return localStorage; } catch { return null; } })(); // a browser may forbid it
  if (help) {
    wanted.checked = !kept?.getItem(OFF);
    on("change", () => (wanted.checked ? kept?.removeItem(OFF) : kept?.setItem(OFF, "1")), wanted);
    on("click", () => { help.showModal(); tell(); }, find("#keys"));
    on("close", tell, help);
  }
  on("keydown", (event) => {
    if (wanted && !wanted.checked) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
    const rows = findAll("tbody tr"), row = document.activeElement.closest("tr"), at = rows.indexOf(row);
    if (event.timeStamp - leader < 1500 && event.key.length === 1) { leader = -Infinity; goes(event.key); }
    else if (event.key === "g") leader = event.timeStamp;
    else if (event.key === "?") find("#keys")?.click();
    else if (event.key === "/") find("#find")?.focus();
    else if (event.key === "j" || event.key === "k") find("th a", rows[Math.max(0, Math.min(rows.length - 1, at + (event.key === "j" ? 1 : -1)))] ?? live)?.focus();
    else if (event.key === "x" && row) find('input[name="id"]', row)?.click();
    else if (event.key === ".") find("#pause").click();
    else return;
    event.preventDefault();
  });

  // Going back restores the boxes that were ticked.
  on("pageshow", count, window);
  count();
})();
