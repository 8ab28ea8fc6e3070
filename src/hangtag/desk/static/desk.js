"use strict";
// Keys, limits of facets, tag search. Without this file the page still works with a mouse.
(() => {
  const form = document.getElementById("decide");
  const undo = document.getElementById("undo");
  document.querySelectorAll(".order select").forEach((select) =>
    select.addEventListener("change", () => select.form.submit()));
  const typing = (target) => target.matches("textarea, select, input:not([type=checkbox])");
  if (!form) {
    document.addEventListener("keydown", (event) => {
      if (event.key === "u" && undo && !typing(event.target)) undo.requestSubmit();
    });
    return;
  }

  const began = Date.now();
  const message = document.getElementById("message");
  const facets = document.getElementById("facets");
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  let sent = false;

  const say = (text) => { message.textContent = text; };

  const keepLimit = (box) => {
    const group = box.closest("fieldset");
    const most = group.dataset.most === undefined ? Infinity : Number(group.dataset.most);
    const checked = [...group.querySelectorAll("input:checked")];
    say("");
    if (!box.checked || checked.length <= most) return;
    if (most === 1) {
      checked.forEach((other) => { other.checked = other === box; });
    } else {
      box.checked = false;
      say(`${group.dataset.facet || "tags"}: at most ${most}. Take one away first.`);
    }
  };

  const light = (number, on) => document.querySelectorAll("mark").forEach((mark) => {
    if (mark.dataset.tags.split(" ").includes(number)) mark.classList.toggle("lit", on);
  });

  facets.addEventListener("change", (event) => keepLimit(event.target));
  for (const [name, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) {
    facets.addEventListener(name, (event) => {
      const choice = event.target.closest(".choice");
      if (choice) light(choice.dataset.number, on);
    });
  }

  const toggle = (number) => {
    const choice = facets.querySelector(`.choice[data-number="${number}"]`);
    if (!choice) return;
    const box = choice.querySelector("input");
    box.checked = !box.checked;
    keepLimit(box);
  };

  const send = (action) => {
    const button = form.querySelector(`button[value=${action}]`);
    if (!sent) form.requestSubmit(button);
  };
  form.addEventListener("submit", (event) => {
    if (event.submitter && event.submitter.form !== form) return;
    if (sent) { event.preventDefault(); return; }
    sent = true;
    form.elements.seconds.value = String(Date.now() - began);
  });
  window.addEventListener("pageshow", () => { sent = false; });

  const add = (tag, facet, most) => {
    let box = [...facets.querySelectorAll("input")].find((other) => other.value === tag);
    if (!box) {
      let group = [...facets.children].find((other) => other.dataset.facet === facet);
      if (!group) {
        group = document.createElement("fieldset");
        group.dataset.facet = facet;
        if (most !== null) group.dataset.most = String(most);
        const legend = document.createElement("legend");
        legend.textContent = facet || "tags";
        group.append(legend);
        facets.append(group);
      }
      const number = facets.querySelectorAll(".choice").length + 1;
      const choice = document.createElement("label");
      choice.className = "choice";
      choice.dataset.number = String(number);
      box = document.createElement("input");
      box.type = "checkbox";
      box.name = "tag";
      box.value = tag;
      choice.append(box);
      if (number <= 9) {
        const key = document.createElement("kbd");
        key.textContent = String(number);
        choice.append(key);
      }
      const name = document.createElement("span");
      name.className = "tag";
      name.textContent = tag;
      choice.append(name);
      group.append(choice);
    }
    box.checked = true;
    keepLimit(box);
  };

  let asked = 0;
  let at = 0;
  const close = () => {
    asked += 1;
    found.hidden = true;
    found.replaceChildren();
    search.setAttribute("aria-expanded", "false");
    search.removeAttribute("aria-activedescendant");
  };
  const choose = (item) => {
    add(item.dataset.tag, item.dataset.facet, item.dataset.most === "" ? null : Number(item.dataset.most));
    search.value = "";
    close();
  };
  const point = (to) => {
    const items = [...found.children];
    if (!items.length) return;
    at = (to + items.length) % items.length;
    items.forEach((item, place) => item.setAttribute("aria-selected", String(place === at)));
    items[at].scrollIntoView({ block: "nearest" });
    search.setAttribute("aria-activedescendant", items[at].id);
  };
  const look = async () => {
    const mine = ++asked;
    const text = search.value.trim();
    if (!text) { close(); return; }
    const answer = await fetch(`/tags?q=${encodeURIComponent(text)}`).catch(() => null);
    if (mine !== asked) return;
    if (!answer || !answer.ok) { say("The desk does not answer. Is it still running?"); return; }
    const tags = await answer.json();
    if (mine !== asked) return;
    found.replaceChildren(...tags.map((tag, place) => {
      const item = document.createElement("li");
      item.id = `found-${place}`;
      item.setAttribute("role", "option");
      Object.assign(item.dataset, { tag: tag.tag, facet: tag.facet, most: tag.most === null ? "" : tag.most });
      item.textContent = `${tag.tag} `;
      const facet = document.createElement("small");
      facet.textContent = tag.facet;
      item.append(facet);
      return item;
    }));
    found.hidden = !tags.length;
    search.setAttribute("aria-expanded", String(tags.length > 0));
    point(0);
  };
  search.addEventListener("input", look);
  found.addEventListener("mousedown", (event) => {
    const item = event.target.closest("li");
    if (item) { event.preventDefault(); choose(item); }
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") point(at + 1);
    else if (event.key === "ArrowUp") point(at - 1);
    else if (event.key === "Enter") { if (!found.hidden) choose(found.children[at]); }
    else if (event.key === "Escape") { search.value = ""; close(); search.blur(); }
    else return;
    event.preventDefault();
  });
  document.getElementById("comment").addEventListener("keydown", (event) => {
    if (event.key === "Escape") event.target.blur();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing(event.target)) return;
    if (event.key === "Enter" && event.target.matches("button, a")) return;
    if (/^[1-9]$/.test(event.key)) toggle(event.key);
    else if (event.key === "Enter") send("save");
    else if (event.key === "0") send("none");
    else if (event.key === "n") send("skip");
    else if (event.key === "u") undo.requestSubmit();
    else if (event.key === "/") search.focus();
    else if (event.key === "c") document.getElementById("comment").focus();
    else return;
    event.preventDefault();
  });
})();
