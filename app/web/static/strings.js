// Every word that a person reads, in one file. Views take theirs from the part with their name.

const percent = (share) => `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
/** A network's certainty never reads as none or all. */
const likelihood = (share) => (share > 0.995 ? "> 99 %" : share < 0.001 ? "< 0.1 %" : percent(share));
const mm = (length) => `${length.toFixed(1)} mm`;
const signed = (value, digits = 1) => value.toFixed(digits).replace("-", "−").replace(/^−(0\.0+)$/, "$1");
const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
const short = (id) => id.slice(0, 8);
const when = (iso) => {
  const at = new Date(iso);
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
};
const duration = (seconds) => (seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`);
const axisNames = ["x", "y", "z"];

const stages = {
  wait: "Waiting", read: "Read", lungs: "Find lungs", prepare: "Prepare", detect: "Detect", characterise: "Characterise",
  measure: "Measure", prior: "Find prior nodules", compare: "Compare", done: "Done",
};
const states = { queued: "Waiting", running: "Running", succeeded: "Done", failed: "Refused", parked: "Given up", cancelled: "Cancelled" };
const points = { sensitive: "Sensitive", balanced: "Balanced", specific: "Specific" };
const kinds = { solid: "solid", part_solid: "part-solid", ground_glass: "ground-glass", calcified: "calcified" };

const findingName = (finding) =>
  finding.nodule ? `Nodule ${finding.short}` : finding.kind === "added" ? `Added ${finding.short.slice(1)}` : `Candidate ${finding.short.slice(1)}`;
const whereabouts = (nodule) => {
  const lobe = nodule?.location?.lobe;
  return [nodule?.side && `${nodule.side} lung`, lobe && `probably ${lobe} lobe`].filter(Boolean).join(", ");
};
const imageRange = (nodule) => {
  const numbers = nodule.slices.map((slice) => slice.instance_number).filter((number) => number !== null);
  return numbers.length ? `${Math.min(...numbers)}–${Math.max(...numbers)}` : null;
};

export const strings = {
  skip: "Skip to the content",
  disclaimer: "Research use only. Not for diagnosis.",
  close: "Close",

  titles: {
    home: "Studies – lungnodule", reading: "Reading – lungnodule", scene: "3-D – lungnodule", patient: "For the patient – lungnodule",
    prior: "Prior – lungnodule", dashboard: "Dashboard – lungnodule", model: "Model – lungnodule",
  },

  shell: {
    name: "lungnodule",
    navigation: "Main",
    home: "Studies",
    dashboard: "Dashboard",
    model: (name, version) => `Model ${name} ${version}`,
    keys: "Keys (?)",
    toLight: "Light theme",
    toDark: "Dark theme",
    lightNow: "The light theme is on.",
    darkNow: "The dark theme is on.",
    signIn: "Sign in",
    signOut: "Sign out",
    signedInAs: (name) => (name ? `Signed in as ${name}` : "Signed in"),
  },

  session: {
    title: "Sign in",
    why: "This installation asks for a key.",
    key: "Key",
    hint: "From whoever runs this installation. It is sent once and not kept in this browser.",
    enter: "Sign in",
    refused: "This key is not known. Check it and try again.",
    needed: "This needs a key. Sign in and open the page again.",
  },

  keys: {
    title: "Keys",
    everywhere: { title: "Everywhere", keys: [["?", "Show the keys"], ["Tab", "Next control"], ["Esc", "Close a dialog"]] },
  },

  problem: {
    title: "This cannot be shown",
    back: "Back to the studies",
    stopped: "Upload stopped",
    noAnswer: "The service does not answer",
    code: (code) => `Code: ${code}`,
    byCode: {
      no_answer: "Check the connection, or whether the service is running, and send the scan again.",
      stopped: "Nothing of it was kept. Send the scan again when you want to.",
    },
  },

  home: {
    title: "Chest CT",
    sent: "Sent from here",
    refusedHere: "Not sent",
    empty: "There is no file with content in it. Choose the folder that holds the CT's slices.",
    tooMany: (count, limit) => `${count} files are more than the ${limit} that one upload may hold. Send one series, or a zip of it.`,
    tooLarge: (bytes, limit) => `${Math.round(bytes / 1e6)} MB are more than the ${Math.round(limit / 1e6)} MB that one upload may hold. Send one series.`,
    drop: {
      label: "Send a scan",
      lead: "Drop a chest CT here",
      formats: "A folder of DICOM files, single files, a zip, or .mha, .mhd with .raw, .nii, .nrrd",
      folder: "Choose a folder",
      files: "Choose files",
      privacy: "It goes to this service and nowhere else. Names of files are not sent.",
    },
    options: {
      title: "Options",
      model: "Model",
      point: "Operating point",
      pointHint: "How readily something is marked.",
      points,
      prior: "Compare with",
      priorHint: "An earlier scan of the same patient that is still stored.",
      noPrior: "No earlier scan",
      priorName: (job) => `${when(job.created_at)} · ${short(job.id)}`,
      eachSeries: "Analyse every series of the upload, each as a study",
      context: {
        title: "Clinical context, for risk and guidelines",
        untold: "Not told",
        yes: "Yes",
        no: "No",
        fromHeaders: "Take age and sex from the DICOM headers where they are not told here",
        names: {
          age_years: "Age in years", sex: "Sex", setting: "Why the CT was made", screening_exam: "Screening round", risk_group: "Fleischner risk group",
          family_history_lung_cancer: "Lung cancer in the family", emphysema: "Emphysema", known_cancer: "Known or earlier cancer", immunosuppressed: "Immunosuppression",
        },
        sexes: { female: "Female", male: "Male" },
        settings: { screening: "Screening (Lung-RADS)", incidental: "Another reason (Fleischner)" },
        exams: { baseline: "Baseline", follow_up: "Follow-up" },
        risks: { low: "Low", high: "High" },
      },
    },
    sending: {
      title: (count, megabytes) => `${plural(count, "file", "files")}, ${megabytes < 10 ? megabytes.toFixed(1) : Math.round(megabytes)} MB`,
      uploading: "Uploading …",
      sent: (loaded, total) => `Uploading: ${Math.floor((loaded / total) * 100)} % of ${Math.round(total / 1e6)} MB`,
      checking: "All is sent. The service stores and checks it.",
      stop: "Stop the upload",
      accepted: "The scan is stored and waits for its turn.",
      batch: (jobs, rejected) => `${plural(jobs, "series is", "series are")} analysed; see the studies below.${rejected ? ` ${rejected} not, because:` : ""}`,
      stages,
      seconds: (seconds) => `${seconds.toFixed(1)} s`,
      place: (status) => {
        const eta = status.eta_s === null ? "" : ` About ${duration(status.eta_s)} to go.`;
        if (status.state === "running") return `Running: ${(stages[status.progress.stage] ?? status.progress.stage).toLowerCase()}.${eta}`;
        return `Waiting${status.position ? `, number ${status.position} in the line` : ""}.${eta}`;
      },
      spoken: (status) => {
        if (status.state === "succeeded") return "The answer is there.";
        if (status.problem) return `Refused. ${status.problem.detail}`;
        return status.state === "running" ? `Running: ${stages[status.progress.stage] ?? status.progress.stage}.` : `${states[status.state]}.`;
      },
      done: (status) => (status.answered_from ? "Done: the same scan had been analysed before." : "Done. The answer is there."),
      read: "Open the reading",
      cancel: "Cancel",
      cancelled: "Cancelled. The scan is still stored: delete its data below if you want it gone.",
      code: (code) => `Code: ${code}`,
    },
    studies: {
      title: "Studies",
      none: "No study yet.",
      columns: ["Received", "Study", "State", "Model", "Actions"],
      when,
      short,
      state: (job) => (job.state === "running" ? `Running: ${(stages[job.progress.stage] ?? job.progress.stage).toLowerCase()}` : states[job.state]),
      read: "Open",
      cancel: "Cancel",
      cancelled: "The study is cancelled.",
      erase: "Delete data",
      eraseTitle: "Delete the data of this study?",
      eraseText: (name) => `Scan, answer and review of ${name} are removed from this service for good. What a PACS has received stays there.`,
      eraseYes: "Delete for good",
      keep: "Keep it",
      erased: (name) => `The data of ${name} are deleted.`,
      newer: "Newer",
      older: "Older",
    },
  },

  reading: {
    opening: "Opening the scan …",
    title: (name) => `Study ${name}`,
    scan: (series) => `${series.shape_zyx[0]} slices, ${series.spacing_zyx_mm[0].toFixed(2)} × ${series.spacing_zyx_mm[1].toFixed(2)} × ${series.spacing_zyx_mm[2].toFixed(2)} mm`,
    digest: (sha256) => `sha256 ${sha256.slice(0, 12)}…`,
    point: (point) => `${(points[point.name] ?? point.name).toLowerCase()}, reported from ${percent(point.threshold)}`,
    warnings: (count) => plural(count, "remark", "remarks"),
    views: { title: "Other views", "3d": "3-D", patient: "For the patient", prior: "Prior" },
    print: "Print",
    panel: "Findings and review",
    viewer: "Slices",
    planes: { axial: "Axial", coronal: "Coronal", sagittal: "Sagittal" },
    windowNames: { lung: "Lung", mediastinum: "Mediastinum", bone: "Bone", wide: "Wide", all: "Full range" },
    loading: "Loading …",
    image: (instance) => `Image ${instance}`,
    slice: (number, count) => `${number} of ${count}`,
    position: (axis, value) => `${axisNames[axis]} ${signed(value)} mm (LPS)`,
    window: (window, mip, inverted) => [`C ${signed(window.center, 0)} W ${Math.round(window.width)} HU`, mip ? `MIP ${mip} mm` : "", inverted ? "inverted" : ""].filter(Boolean).join(" · "),
    ruler: (length) => (length === 50 ? "5 cm" : "1 cm"),
    mm,
    spoken: (number, count, instance, axis, value) => `${instance === null ? "" : `image ${instance}, `}slice ${number} of ${count}, ${axisNames[axis]} ${signed(value)} mm`,
    point3: ([x, y, z]) => `x ${signed(x)}  y ${signed(y)}  z ${signed(z)} mm (LPS)`,
    pointHere: "Point at a slice for position and density",
    hu: (value) => `${signed(value, 0)} HU`,

    commands: {
      title: "Reading",
      pointerTitle: "Pointer",
      tools: "Picture",
      windows: "Window",
      show: "Show",
      tool: "Tool",
      size: "Size",
      thickness: "Slab thickness",
      thin: "Single slices",
      thick: (thickness) => `MIP ${thickness} mm`,
      withKey: (what, key) => `${what} (${key})`,
      short: { boxes: "Boxes", contours: "Outlines", crosshair: "Crosshair", invert: "Invert", measure: "Measure", add: "Add nodule", larger: "Zoom in", smaller: "Zoom out", whole: "Fit", enlarge: "Enlarge" },
      up: "One slice up; with Shift ten",
      down: "One slice down; with Shift ten",
      first: "First slice",
      last: "Last slice",
      next: "Next finding",
      previous: "Previous finding",
      preset: (window) => `${window.name} window: centre ${signed(window.center, 0)}, width ${Math.round(window.width)} HU`,
      invert: "Invert grey",
      boxes: "Boxes on or off",
      contours: "Outlines on or off",
      crosshair: "Crosshair on or off",
      darker: "Window centre down by 25 HU",
      lighter: "Window centre up by 25 HU",
      narrower: "Narrower window",
      wider: "Wider window",
      measure: "Measure a distance: drag, or Enter at either end of it",
      here: "On a plane: add or measure at the crosshair",
      clear: "Put the tool away and remove measured lines",
      larger: "Zoom in",
      smaller: "Zoom out",
      whole: "Fit the slice to its place",
      enlarge: "Enlarge the plane in use, or show all three",
      accept: "Accept the nodule; again to take it back",
      reject: "Reject the nodule; again to take it back",
      add: "Add a nodule: click its centre, or Enter at the crosshair",
      pointer: {
        Click: "Move the crosshair",
        Wheel: "Scroll through the slices",
        "Ctrl + wheel": "Zoom",
        "Right button, or W + drag": "Window: sideways width, up and down centre",
        "Middle button, or Shift + drag": "Move the picture",
      },
    },

    list: {
      title: "Findings",
      sort: "Sort by",
      sorts: { probability: "By probability", size: "By size", malignancy: "By malignancy" },
      count: (count) => plural(count, "mark", "marks"),
      threshold: "Show from a probability of",
      reset: "As reported",
      percent,
      measured: (point, data) =>
        `At ${percent(point.threshold)}: finds ${percent(point.sensitivity)} of nodules with ${signed(point.false_positives_per_scan, 2)} false marks a scan${data ? `. Measured on ${data}.` : "."}`,
      unmeasured: "What this threshold finds was not measured.",
      name: findingName,
      what: (finding) => {
        if (!finding.nodule) return finding.kind === "added" ? "by the reader" : "below the threshold in force";
        return [kinds[finding.nodule.kind], whereabouts(finding.nodule)].filter(Boolean).join(", ");
      },
      mm,
      certainty: (finding) =>
        finding.probability === null ? "" : `nodule ${likelihood(finding.probability)}${finding.nodule ? ` · malignancy ${likelihood(finding.nodule.malignancy_probability)}` : ""}`,
      decisions: { accepted: "✓ accepted", rejected: "✕ rejected" },
      spoken: (finding) => `${findingName(finding)}, ${mm(finding.diameter_mm)}${finding.nodule ? `, ${whereabouts(finding.nodule)}` : ""}.`,
    },

    review: {
      title: "Review",
      reviewer: "Reader's name",
      finish: "Finish the review",
      nameFirst: "Enter the reader's name first: it is kept with each decision.",
      noNodule: "Only a reported nodule can be accepted or rejected. Add a nodule where a candidate is one.",
      unsaved: "Nothing is decided yet. A accepts, R rejects, D adds.",
      saving: "Saving …",
      saved: ({ reviewer, decided, total, added, finished, at }) =>
        `${finished ? "Finished" : "Saved"}${at ? ` ${when(at)}` : ""}, ${reviewer}: ${decided} of ${total} decided, ${added} added.`,
      conflict: "Somebody else saved a review meanwhile. Theirs is shown now; your last change was not saved. Make it again if it still holds.",
      notSaved: "Not saved.",
      decided: { accepted: "Accepted or taken back, and saved.", rejected: "Rejected or taken back, and saved." },
      addedOne: "A nodule was added and saved.",
      removed: "The added nodule was removed.",
      noted: "The note is saved.",
      done: "The review is finished.",
    },

    details: {
      title: "The chosen finding",
      none: "Choose a finding in the list, or with N and P.",
      name: findingName,
      where: (finding) => whereabouts(finding.nodule),
      candidate: "The network's guess, below the threshold of the answer: it was not measured and is not in any report. Add a nodule where it is one.",
      candidateFacts: (one) => [["Nodule probability", likelihood(one.probability)], ["Diameter, guessed", mm(one.diameter_mm)], ["Centre (LPS)", `${one.center_lps_mm.map((value) => signed(value)).join(", ")} mm`]],
      addedFacts: (one) => [["Diameter, by the reader", mm(one.diameter_mm)], ["Centre (LPS)", `${one.center_lps_mm.map((value) => signed(value)).join(", ")} mm`]],
      facts: (nodule) => [
        ["Nodule probability", likelihood(nodule.probability)],
        ["Mean diameter", mm(nodule.diameter_mm), `${nodule.long_axis_mm.toFixed(1)} × ${mm(nodule.short_axis_mm)}`],
        ["Volume", `${Math.round(nodule.volume_mm3)} mm³`, nodule.volume_interval_mm3 && `95 %: ${Math.round(nodule.volume_interval_mm3[0])}–${Math.round(nodule.volume_interval_mm3[1])}`],
        nodule.kind && ["Type", kinds[nodule.kind], nodule.is_spiculated ? "spiculated" : ""],
        nodule.solid_diameter_mm && ["Solid part", mm(nodule.solid_diameter_mm)],
        nodule.mean_hu !== null && ["Density", `${signed(nodule.mean_hu, 0)} HU`, nodule.min_hu !== null && `${signed(nodule.min_hu, 0)} to ${signed(nodule.max_hu, 0)} HU`],
        nodule.signs.length > 0 && ["Signs", nodule.signs.join(", ")],
        nodule.location?.distance_to_pleura_mm != null && ["To the pleura", mm(nodule.location.distance_to_pleura_mm), nodule.location.is_juxtapleural ? "juxtapleural" : ""],
        imageRange(nodule) && ["Images", imageRange(nodule), "as the PACS counts"],
        ["Centre (LPS)", `${nodule.center_lps_mm.map((value) => signed(value)).join(", ")} mm`],
      ],
      likelihood,
      malignancy: "Malignancy",
      labels: { malignant: "above the model's threshold", benign: "below the model's threshold" },
      accept: "Accept",
      reject: "Reject",
      note: "Note to the decision",
      diameter: "Diameter in mm",
      remove: "Remove this mark",
      explain: "Why did the network mark it?",
      explaining: "Asking the network … this takes a while",
      explanationAlt: "Axial slice: red where covering the place makes the network less certain, blue where it makes it more certain; the nodule's outline is drawn.",
      explanationMeans: "Red: covering this place makes the network less certain. Blue: more certain.",
      judgement: {
        title: "Guidelines and risk",
        none: "not given",
        category: (category) => category.replaceAll("_", " "),
        guidelines: { lung_rads_v2022: "Lung-RADS 2022", fleischner_2017: "Fleischner 2017", bts_2015: "BTS 2015" },
        brock: { brock_full_2b: "Brock risk (2b)", brock_full_2a: "Brock risk (2a)" },
        percent,
        used: "From:",
        missing: "Not told, and able to change it:",
        inputs: (pairs) => (pairs.length ? `${pairs.map(([name, value]) => `${name} ${value.replaceAll("_", " ")}`).join(", ")}.` : "nothing."),
        named: (name) => name.replace(/_mm3$/, " (mm³)").replace(/_mm$/, " (mm)").replaceAll("_", " "),
        source: "Source:",
        growth: (growth) => `Change since the earlier CT: ${(growth.verdict ?? growth.status ?? growth.change ?? "see the prior view").replaceAll("_", " ")}.`,
      },
    },

    downloads: {
      title: "Downloads",
      forms: { sr: "DICOM SR", seg: "DICOM SEG", gsps: "DICOM GSPS", ko: "Key images (KO)", sc: "Summary image (SC)", pdf: "PDF report", fhir: "FHIR", csv: "CSV", json: "JSON" },
      corrected: "Corrected SR",
      correctedHint: "The corrected SR keeps the model's draft and the reader's decisions apart. It needs a saved review.",
      taken: (name) => `${name} is downloaded.`,
    },

    text: {
      open: "As text",
      title: "Findings as text",
      copy: "Copy",
      copied: "Copied.",
      heading: "CHEST CT, LUNG NODULES (draft by software)",
      scan: (volume) => `${volume.shape_zyx[0]} slices, ${volume.spacing_zyx_mm[0].toFixed(2)} mm apart.`,
      nothing: "No nodule was reported at this operating point.",
      images: (first, last) => (first === last ? `image ${first}` : `images ${first} to ${last}`),
      nodule: (number, nodule, images) =>
        `${number}. ${[whereabouts(nodule) || "site not determined", kinds[nodule.kind], `${nodule.long_axis_mm.toFixed(1)} x ${mm(nodule.short_axis_mm)}`, `mean ${mm(nodule.diameter_mm)}`, `volume ${Math.round(nodule.volume_mm3)} mm3`, images].filter(Boolean).join(", ")}. Nodule probability ${likelihood(nodule.probability)}, malignancy ${likelihood(nodule.malignancy_probability)}.`,
      decided: ({ decision, note }) => `Reader: ${decision}${note ? ` (${note})` : ""}.`,
      addedHeading: "Added by the reader:",
      added: (number, mark) => `+${number}. ${mm(mark.diameter_mm)} at LPS ${mark.center_lps_mm.map((value) => value.toFixed(1)).join(", ")} mm${mark.note ? `: ${mark.note}` : ""}.`,
      reviewer: ({ reviewer, updated_at, finished }) => `${finished ? "Reviewed" : "Review begun"} by ${reviewer}${updated_at ? `, ${when(updated_at)}` : ""}.`,
      model: (model, point) => `Model ${model.name}:${model.version}, sha256 ${model.sha256}, operating point ${point.name} (${percent(point.threshold)}).`,
    },
  },
};
