"""The list of hostile inputs that a running service is sent, by its rows, with the answers that are right.

`test_inputs` tries each, the soak picks among them, `python -m tests.hostile` prints what they cost. Rows 42 to 48,
54 and 55 are no inputs of it but faults of processes, disks, databases, devices, models, of a PACS, a worklist and a
router: `faults` has those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.hostile import archive_files as z
from tests.hostile import dicom_files as d
from tests.hostile import routes as r
from tests.hostile import series_files as s
from tests.hostile import traffic as t
from tests.hostile.site import Answer, Site

Told = tuple[int, str]
Make = Callable[[Path], list[Path]]
FINE: Told = (200, "")
PROBLEM = "application/problem+json"
PROTOCOL = "application/json"
"""Refusals of the Open Inference Protocol are `{"error": ...}`."""
DICOM = "application/dicom+json"
"""Refusals of STOW-RS are data sets with the reason of each instance."""
WRONG_TENSOR: Told = (400, "")
NONE_STORED: Told = (409, "")


@dataclass(frozen=True)
class Case:
    """One hostile input."""

    row: int
    name: str
    expected: tuple[Told, ...]
    """Any of these is right."""
    make: Make | None = None
    """Files to be uploaded ..."""
    act: Callable[[Site, Path], Answer] | None = None
    """... or what a client does."""
    form: str = PROBLEM
    """Media type of a refusal, where it is another one than a problem's."""

    @property
    def id(self) -> str:
        return f"{self.row:02d} {self.name}"

    def ready(self, site: Site, folder: Path) -> Callable[[], Answer]:
        """Make its files, in ``folder``; what is given back does it."""
        if self.make is not None:
            return partial(site.post, "/v1/predict", self.make(folder))
        assert self.act is not None
        return partial(self.act, site, folder)


def files(row: int, make: Make, *expected: Told, name: str = "") -> Case:
    return Case(row, name or make.__name__.replace("_", " "), expected, make=make)


def doing(row: int, act: Callable[[Site, Path], Answer], *expected: Told, form: str = PROBLEM) -> Case:
    return Case(row, act.__name__.replace("_", " "), expected, act=act, form=form)


HOSTILE: tuple[Case, ...] = (
    files(1, d.empty_file, (422, "empty_upload")),
    files(2, d.text, (415, "not_dicom")),
    files(2, d.picture, (415, "not_dicom")),
    files(2, d.document, (415, "not_dicom")),
    files(3, d.without_preamble, (422, "no_preamble")),
    files(4, d.header_cut, (422, "truncated")),
    files(4, d.meta_cut, (422, "truncated")),
    files(5, d.pixels_cut, (422, "truncated")),
    files(5, d.compressed_pixels_cut, (422, "truncated")),
    files(5, d.enhanced_pixels_cut, (422, "truncated")),
    files(6, d.huge_matrix, (422, "invalid_pixel_format")),
    files(7, d.no_rows, (422, "invalid_pixel_format")),
    files(7, d.three_bits, (422, "invalid_pixel_format")),
    files(7, d.colour, (422, "invalid_pixel_format")),
    files(8, d.frames_without_end, (422, "invalid_pixel_format")),
    files(9, d.rle_bomb, (422, "invalid_pixel_format")),
    files(9, d.rle_bombs_within_the_matrix, (413, "too_many_voxels")),
    files(10, d.deflate_bomb, (413, "compression_ratio")),
    files(10, d.deflate_bomb_behind_a_header, (413, "compression_ratio")),
    files(11, d.jpeg_2000_bomb, (422, "decode_failed")),
    files(12, d.jpeg_ls_garbage, (422, "decode_failed")),
    files(12, d.jpeg_2000_garbage, (422, "decode_failed")),
    files(13, d.film, (415, "transfer_syntax")),
    files(13, d.syntax_of_nobody, (415, "transfer_syntax")),
    files(14, d.unknown_vr_in_meta, (422, "truncated")),
    files(15, d.endless_element, (422, "truncated")),
    files(16, d.nested_sequences, (422, "damaged_header")),
    files(17, d.private_elements, FINE),
    files(18, d.uid_that_is_a_path, (422, "invalid_uid")),
    files(19, d.name_that_is_a_program, FINE),
    files(20, d.character_set_of_nobody, FINE),
    files(21, d.program_in_the_preamble, FINE),
    files(22, s.slice_missing, (422, "nonuniform_spacing")),
    files(23, s.slice_sent_twice, FINE),
    files(23, s.two_at_one_place, (422, "duplicate_slices")),
    files(24, s.two_series, (422, "ambiguous_series")),
    files(25, s.one_turned, (422, "mixed_geometry")),
    files(25, s.one_of_another_frame, (422, "mixed_geometry")),
    files(25, s.one_of_another_size, (422, "mixed_geometry")),
    files(26, s.gantry_tilted, FINE),
    files(26, s.oblique, FINE),
    files(27, s.no_spacing, (422, "invalid_geometry")),
    files(27, s.negative_spacing, (422, "invalid_geometry")),
    files(27, s.cosmic_spacing, (422, "invalid_geometry")),
    files(27, s.no_orientation, (422, "invalid_geometry")),
    files(27, s.half_a_position, (422, "invalid_geometry")),
    files(28, s.slope_of_each_slice, FINE),
    files(28, s.cosmic_slope, (422, "invalid_rescale")),
    files(28, s.no_rescale, (422, "missing_rescale")),
    files(29, s.magnetic, (422, "unsupported_series")),
    files(29, s.report_only, (422, "unsupported_series")),
    files(29, s.localizer, (422, "unsupported_series")),
    files(29, s.one_slice, (422, "unsupported_series")),
    files(29, s.head, (422, "unsupported_series")),
    files(29, s.thick, FINE),
    files(30, s.air, (422, "no_lungs")),
    files(30, s.water, (422, "no_lungs")),
    files(30, s.not_a_number, (422, "not_finite")),
    files(31, s.nifti_bomb, (413, "too_many_voxels")),
    files(31, s.nifti_bomb_of_a_small_image, (422, "length_mismatch")),
    files(31, s.nifti_bomb_before_the_image, (422, "header_too_large")),
    files(31, s.nifti_of_the_greatest_size, (413, "too_many_voxels")),
    files(31, s.nifti_sheared, (422, "invalid_geometry")),
    files(31, s.good_nifti, FINE),
    files(32, z.zeros, (413, "too_large"), (413, "compression_ratio")),
    files(32, z.zeros_that_are_said_to_be_few, (422, "zip_damaged")),
    files(33, z.members_that_overlap, (422, "zip_overlap")),
    files(34, z.names_that_climb, FINE),
    files(34, z.name_with_nul, FINE),
    files(35, z.hundred_thousand, (413, "too_many_files")),
    files(35, z.nested, (422, "zip_nested")),
    files(35, z.encrypted, (422, "zip_encrypted")),
    files(35, z.directory_cut, (422, "zip_damaged")),
    doing(36, t.promised_too_much, (0, "")),
    doing(36, t.negative_length, (400, "malformed_request")),
    doing(36, t.two_lengths, (400, "malformed_request")),
    doing(36, t.length_and_chunks, (400, "malformed_request")),
    doing(36, t.chunks_of_nonsense, (400, "malformed_request")),
    doing(37, t.slow_upload, (408, "upload_too_slow")),
    doing(37, t.slow_job, (408, "upload_too_slow")),
    doing(37, t.half_a_header, (408, "request_header_too_slow")),
    doing(37, t.no_header, (408, "request_header_too_slow")),
    doing(37, t.slow_document, (408, "upload_too_slow")),
    doing(38, t.gone_half_way, (0, "")),
    doing(38, t.gone_half_way_through_a_job, (0, "")),
    doing(38, t.gone_before_the_answer, (0, "")),
    doing(39, t.ten_thousand_files, (413, "too_many_files")),
    doing(39, t.ten_thousand_fields, (400, "too_many_fields")),
    doing(39, t.long_part_header, (400, "malformed_upload")),
    doing(39, t.long_header, (431, "request_header_too_large")),
    doing(39, t.many_headers, (431, "too_many_headers")),
    doing(39, t.no_boundary, (400, "boundary_missing")),
    doing(39, t.not_http, (400, "malformed_request")),
    doing(40, t.endless_body, (413, "request_too_large")),
    doing(40, t.endless_document, (413, "too_large")),
    doing(40, t.endless_retry, (413, "too_large")),
    doing(41, t.same_key_twice, (202, "")),
    doing(41, t.same_key_for_another_scan, (422, "idempotency_key_reused")),
    doing(49, r.slab_without_end, (422, "invalid_request")),
    doing(49, r.slab_from_the_far_end, (422, "slice_out_of_range")),
    doing(49, r.slab_of_negative_size, (422, "invalid_request")),
    doing(49, r.slab_of_no_number, (422, "invalid_request")),
    doing(49, r.slab_of_a_name, (422, "invalid_request")),
    doing(49, r.slab_of_another_job, (404, "not_found")),
    doing(49, r.point_of_no_number, (422, "invalid_point")),
    doing(49, r.point_without_end, FINE),
    doing(50, r.large_review, (413, "too_large")),
    doing(50, r.review_with_a_long_note, (422, "invalid_request")),
    doing(50, r.deep_review, (400, "malformed_body")),
    doing(50, r.review_of_ten_thousand, (422, "invalid_request")),
    doing(50, r.review_of_no_number, (422, "invalid_request")),
    doing(50, r.review_by_a_line_break, (422, "invalid_request")),
    doing(50, r.review_of_wrong_types, (422, "invalid_request")),
    doing(50, r.review_that_is_a_program, FINE),
    doing(51, r.tensor_without_end, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.tensor_of_negative_size, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.tensor_of_many_axes, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.tensor_of_another_type, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.tensor_of_words, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.tensor_of_no_number, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.tensor_of_long_numbers, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.deep_tensor, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.tensor_in_rows_of_any_length, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.binary_header_beyond_the_body, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.binary_header_of_no_number, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.binary_tensor_that_is_not_there, WRONG_TENSOR, form=PROTOCOL),
    doing(51, r.network_of_nobody, (404, "not_found")),
    doing(52, r.session_of_a_long_key, (422, "invalid_request")),
    doing(52, r.session_of_wrong_types, (422, "invalid_request")),
    doing(52, r.large_session, (413, "too_large")),
    doing(52, r.deep_session, (400, "malformed_body")),
    doing(52, r.session_where_there_is_none, (409, "access_off")),
    doing(53, r.stored_text, NONE_STORED, form=DICOM),
    doing(53, r.stored_half, NONE_STORED, form=DICOM),
    doing(53, r.stored_with_text_in_the_pixels, NONE_STORED, form=DICOM),
    doing(53, r.stored_under_another_study, (404, "not_found")),
    doing(53, r.stored_ten_thousand, (413, "too_many_files")),
    doing(53, r.stored_in_another_type, (415, "unsupported_media_type")),
)
